"""Break one rule of the library at a time, and see that the sample notices each.

`python -m tests.zoo.mutations` copies the tree once a mutation, replaces one piece of source in the copy, and examines
the models of the sample there, of which one must fail. A mutation whose source is not found any more is an error too:
then it has to be written anew.
"""
