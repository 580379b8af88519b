"""`python -m pushsim`: the command, where its script is not on the path."""

from pushsim.cli import main

if __name__ == "__main__":
    main()
