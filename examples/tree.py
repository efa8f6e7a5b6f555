# Reads this guest's own part of xenstore: each node, what it holds, and who may read and write it.
#
# "n1 r2": domain 1 owns the node, nobody else may use it, but domain 2 reads it.

from xenpv.errors import XenstoreError


async def show(path, depth):
    try:
        value = await store.read_text(path)
        perms = " ".join("%s%d" % perm for perm in await store.get_perms(path))
        names = sorted(await store.directory(path))
    except XenstoreError as error:  # a node that is not for us, or that went meanwhile
        print("%s%s: %s" % ("  " * depth, path, error.code))
        return
    name = path.rpartition("/")[2]
    print("%s%s = '%s'  (%s)" % ("  " * depth, name, value, perms))
    for child in names:
        await show(path + "/" + child, depth + 1)


# Paths that do not begin with a slash are below the guest's own directory.
home = await store.get_domain_path(await store.read_int("domid"))
await show(home, 0)
