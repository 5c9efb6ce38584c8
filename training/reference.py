"""TODO"""
def reference_of(model, assignment, *, work, world): raise NotImplementedError
