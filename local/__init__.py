"""The local stack: the unmodified Pulumi program on an AWS emulator embedded in this process tree.

`python -m local up` keeps the stack running, `python -m local demo` shows documents go by.
Nothing here is deployed, and nothing in `infra` or `functions` knows of it.
"""
