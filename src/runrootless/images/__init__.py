"""Images in: from where they are kept to a bundle.

``reference`` says what is asked for, ``transports`` get it out of a registry, ``layout`` and
``archive`` read what is on this machine, ``unpack`` makes a root file system of layers, with
what an unprivileged user cannot give to files kept as records, and ``config`` makes the
configuration of an image that of a bundle.
"""
