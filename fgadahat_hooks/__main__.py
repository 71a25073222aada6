"""`python -m fgadahat_hooks` is the command line."""

from fgadahat_hooks.cli import main

if __name__ == "__main__":
    main()
