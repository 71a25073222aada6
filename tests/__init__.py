"""The tests of `fgadahat_hooks`."""
