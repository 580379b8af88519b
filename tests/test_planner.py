"""The planner, which shares plans among groups and lets go of the past, against the plain conversation."""

from hypothesis import HealthCheck, given, settings
from strategies import scripts

from pushsim import releases
from pushsim.conversation import Conversation
from pushsim.planners.istio import IstioPlanner
from pushsim.pricing import Pricing
from pushsim.settings import Settings, Timed, Variant


def told(response):
    return (response.xds, response.resources, response.removed, response.solicited, response.size_bytes)


def from_conversation(release, mode, mesh, changes):
    """By change and proxy, the responses; None where a push was not needed."""
    conversation = Conversation(mesh, releases.rules(release), mode, changes)
    pricing = Pricing(mesh, releases.rules(release), mode)
    for change in changes:
        step = conversation.step(change)
        yield {
            proxy.id: [
                (r.xds, r.count, len(r.removed), r.solicited, pricing.size(r, outcome.plan.state, outcome.push))
                for r in outcome.plan.responses
            ]
            for outcome in step.outcomes
            for proxy in outcome.members
        }


def from_planner(release, mode, mesh, changes, *, forgetting):
    """The same of a planner that is asked group by group, for one push per change."""
    timed = tuple(Timed(n, change, "test") for n, change in enumerate(changes))
    planner = IstioPlanner(Variant("v", mesh, timed, Settings(release=release, mode=mode)))
    states = [planner.connect(group, -1).state for group in range(len(planner.groups))]
    published = -1
    for number, change in enumerate(changes):
        handled = planner.handle(number, change)
        first = sum(len(known) for known in planner_requests(planner)) - len(handled.requests)
        answers = {}
        common = [first + n for n, request in enumerate(handled.requests) if not request.proxies]
        own = {group for request in handled.requests for group, _ in request.proxies}
        if common:
            published = planner.push(common).number
        for group, members in enumerate(planner.groups):
            got = []
            if group in own and len(members.proxies) == 1 and published >= 0:
                planned = planner.plan(group, states[group], published, published - 1, True)
                states[group] = planned.state
                got += map(told, planned.responses)
            if common:
                planned = planner.plan(group, states[group], published, published, False)
                states[group] = planned.state
                got += map(told, planned.responses)
            answers |= {proxy.id: got for proxy in members.proxies}
        if forgetting and published >= 0:
            planner.keep(set(states), published)
        yield answers
