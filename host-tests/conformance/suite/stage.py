"""The nodes of others that domain 0 makes for a guest before the suite runs there.

They are below the guest's data/stage. Perms are as xenstore-chmod takes them; %d is the guest.
"""

TOP = "data/stage"
MANY = 300

NODES = (
    ("", "", "n0 r%d"),
    ("hidden", "secret", "n0"),
    ("hidden/below", "secret", "n0"),
    ("readonly", "seen", "n0 r%d"),
    ("both", "seen", "n0 b%d"),
    ("everyone", "seen", "r0"),
    ("excepted", "secret", "b0 n%d"),
    ("hidden/drop", "secret", "n0 w%d"),
)


def path(name):
    return TOP + "/" + name if name else TOP


def many():
    """Names of the children of "many": more than a payload holds."""
    return ["a-rather-long-name-for-a-node-%d" % i for i in range(MANY)]
