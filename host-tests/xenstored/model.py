"""A model of the store to hold the server to: a dict of paths, scanned in full for everything."""

DOM0 = 0


class Model:
    """nodes: path -> (value, perms), in order of creation; targets: domid -> domid."""

    def __init__(self, nodes=None, targets=None):
        self.nodes = dict(nodes or {"/": (b"", (("n", DOM0),))})
        self.targets = targets or {}

    def copy(self):
        return Model(self.nodes, self.targets)

    def ids(self, domid):
        return {domid, self.targets.get(domid, domid)}

    def letters(self, domid, path):
        """What a domain may do to a node that is there: some of "rwo"."""
        perms = self.nodes[path][1]
        if domid == DOM0 or perms[0][1] in self.ids(domid):
            return "rwo"
        named = [letter for letter, who in perms[1:] if who in self.ids(domid)]
        return {"n": "", "r": "r", "w": "w", "b": "rw"}[(named or [perms[0][0]])[0]]

    def above(self, path):
        """The nearest node that is there above a path."""
        above = path.rpartition("/")[0] or "/"
        return above if above in self.nodes else self.above(above)

    def refusal(self, domid, path, letter):
        """The error that a domain gets for an access, or None."""
        if path in self.nodes:
            return None if letter in self.letters(domid, path) else "EACCES"
        return "ENOENT" if letter in self.letters(domid, self.above(path)) else "EACCES"

    def below(self, path):
        base = "" if path == "/" else path
        return [p for p in self.nodes if p.startswith(base + "/") and p != "/"]

    def children(self, path):
        base = "" if path == "/" else path
        names = [p[len(base) + 1 :] for p in self.below(path)]
        return [name for name in names if "/" not in name]

    def make(self, domid, path, value):
        above = self.above(path)
        perms = self.nodes[above][1]
        if domid != DOM0:
            perms = ((perms[0][0], domid), *perms[1:])
        rest = path[len(above) :].strip("/").split("/")
        for i in range(len(rest)):
            made = "/".join([above.rstrip("/"), *rest[: i + 1]])
            self.nodes[made] = (value if made == path else b"", perms)

    # The operations: what comes back, or the error's name. Changes: paths that are told to watches.

    def apply(self, domid, name, path, *args):
        return getattr(self, name)(domid, path, *args)

    def read(self, domid, path):
        return self.refusal(domid, path, "r") or self.nodes[path][0]

    def get_perms(self, domid, path):
        return self.refusal(domid, path, "r") or self.nodes[path][1]

    def directory(self, domid, path):
        names = "".join(f"{name}\0" for name in self.children(path))
        return self.refusal(domid, path, "r") or names.encode()

    def write(self, domid, path, value):
        refusal = self.refusal(domid, path, "w")
        if refusal == "EACCES":
            return refusal
        if refusal:
            self.make(domid, path, value)
        else:
            self.nodes[path] = (value, self.nodes[path][1])
        return None

    def mkdir(self, domid, path):
        refusal = self.refusal(domid, path, "w")
        if refusal == "EACCES":
            return refusal
        if refusal:
            self.make(domid, path, b"")
        return None

    def rm(self, domid, path):
        refusal = self.refusal(domid, path, "w")
        if refusal == "ENOENT" and (path.rpartition("/")[0] or "/") in self.nodes:
            return None
        if refusal:
            return refusal
        if path == "/":
            return "EINVAL"
        for gone in [path, *self.below(path)]:
            del self.nodes[gone]
        return None

    def set_perms(self, domid, path, perms):
        refusal = self.refusal(domid, path, "w")
        if refusal == "ENOENT":
            return refusal
        if refusal or "o" not in self.letters(domid, path):
            return "EACCES"
        if domid != DOM0 and perms[0][1] != self.nodes[path][1][0][1]:
            return "EPERM"
        self.nodes[path] = (self.nodes[path][0], perms)
        return None
