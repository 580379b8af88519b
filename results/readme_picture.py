"""Draws README's picture from the result folders of `pushsim simulate aisuite --out DIR`.

Usage: python results/readme_picture.py DIR results/aisuite.svg
"""

import sys

import pushsim as ps

if __name__ == "__main__":
    ps.plots.before_after(ps.load(sys.argv[1])).save(sys.argv[2])
