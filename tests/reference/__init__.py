"""Second implementations, slow and obvious: plain Python loops over plain lists. They never import the library."""
