"""The mutating admission webhook that runs a policy's `admit` on Services as they are written, and nothing else.

review     one AdmissionReview in, one out; no I/O
server     the HTTPS server around it
manifests  what installs it
running    from a policy's name or file to one of these
"""

from pushsim.webhook.review import Answer, answer
from pushsim.webhook.running import webhook

__all__ = ["Answer", "answer", "webhook"]
