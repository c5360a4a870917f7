"""Putting processes that run already under the filter: tracing them for the time of a few calls.

A process can be put under a filter by itself alone: seccomp(2). So it is made to do that at a
moment when it is stopped, and has nothing of that in its registers and its memory afterwards.
"""
