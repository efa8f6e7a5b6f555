"""The nodes of the store: operations, permissions, removal."""

import pytest

from pvdump.xenstored.domain import DOM0, QUOTAS, DomainRecord, StoreError
from pvdump.xenstored.nodes import check_path, names_of
from pvdump.xenstored.tree import Tree

HOME = "/local/domain/1"
DATA = f"{HOME}/data"
QUOTA = {name: quota.default for name, quota in QUOTAS.items()}
dom0, dom1, dom2 = (DomainRecord(domid, 0, QUOTA) for domid in (DOM0, 1, 2))


@pytest.fixture
def tree():
    tree = Tree()
    tree.write(dom0, HOME, b"")
    tree.set_perms(dom0, HOME, (("n", DOM0), ("r", 1)))
    tree.write(dom0, DATA, b"")
    tree.set_perms(dom0, DATA, (("n", 1),))
    tree.take_changes()
    yield tree
    assert tree.check() == []


def refused(code, call, *args):
    with pytest.raises(StoreError) as error:
        call(*args)
    assert error.value.code == code


def test_a_write_makes_its_parents_empty(tree):
    tree.write(dom1, f"{DATA}/a/b", b"x")
    assert tree.read(dom1, f"{DATA}/a") == b""
    assert names_of(tree.directory(dom1, DATA)) == ["a"]


def test_children_come_in_the_order_they_were_made(tree):
    for name in ("z", "a", "m"):
        tree.mkdir(dom1, f"{DATA}/{name}")
    assert names_of(tree.directory(dom1, DATA)) == ["z", "a", "m"]


def test_mkdir_of_a_node_that_is_there_changes_nothing(tree):
    tree.write(dom1, f"{DATA}/a", b"x")
    tree.take_changes()
    tree.mkdir(dom1, f"{DATA}/a")
    assert tree.read(dom1, f"{DATA}/a") == b"x"
    assert tree.take_changes() == []


def test_a_guest_owns_what_it_makes_and_others_may_do_as_the_parent_lets_them(tree):
    tree.set_perms(dom1, DATA, (("n", 1), ("r", 2)))
    tree.write(dom1, f"{DATA}/a", b"x")
    assert tree.get_perms(dom1, f"{DATA}/a") == (("n", 1), ("r", 2))
    assert tree.read(dom2, f"{DATA}/a") == b"x"


def test_outside_of_its_own_nodes_a_guest_can_write_nothing(tree):
    refused("EACCES", tree.write, dom1, f"{HOME}/name", b"x")
    refused("EACCES", tree.mkdir, dom1, "/local/domain/2/data")
    refused("EACCES", tree.rm, dom1, HOME)


def test_an_absent_node_is_enoent_to_whom_the_nearest_node_above_is_open(tree):
    refused("ENOENT", tree.read, dom1, f"{HOME}/nothing/at/all")
    refused("EACCES", tree.read, dom2, f"{HOME}/nothing/at/all")
    refused("ENOENT", tree.rm, dom1, f"{DATA}/nothing/at/all")
    refused("EACCES", tree.rm, dom1, f"{HOME}/nothing")
    refused("ENOENT", tree.directory, dom0, "/nothing")


def test_rm_of_an_absent_node_is_fine_where_its_parent_is_there(tree):
    tree.rm(dom1, f"{DATA}/nothing")
    refused("ENOENT", tree.rm, dom1, f"{DATA}/nothing/at")


def test_the_root_cannot_be_removed(tree):
    refused("EINVAL", tree.rm, dom0, "/")
    refused("EACCES", tree.rm, dom1, "/")


def test_rm_takes_all_below_and_tells_of_each_path_the_deepest_first(tree):
    tree.write(dom1, f"{DATA}/a/b", b"")
    tree.write(dom1, f"{DATA}/ab", b"")
    tree.take_changes()
    tree.rm(dom1, f"{DATA}/a")
    told = [(change.path, change.exact) for change in tree.take_changes()]
    assert told == [(f"{DATA}/a/b", True), (f"{DATA}/a", False)]
    assert names_of(tree.directory(dom1, DATA)) == ["ab"]
    assert not tree.exists(f"{DATA}/a/b")


@pytest.mark.parametrize(
    "path", ["", "a", "//", "/a/", "/a//b", "/a b", "/a\0", "/a.b", "/ä", "/" + "a" * 3072]
)
def test_what_is_no_path_is_einval(path):
    refused("EINVAL", check_path, path)


class TestPermissions:
    def test_only_the_owner_sets_them_and_only_domain_0_gives_a_node_away(self, tree):
        refused("EACCES", tree.set_perms, dom2, DATA, (("b", 2),))
        refused("EPERM", tree.set_perms, dom1, DATA, (("n", 2),))
        tree.set_perms(dom1, DATA, (("n", 1), ("b", 2)))
        tree.write(dom2, f"{DATA}/from2", b"hello")
        tree.set_perms(dom0, DATA, (("n", 2),))
        refused("EACCES", tree.read, dom1, DATA)

    @pytest.mark.parametrize(
        ("letter", "reads", "writes"),
        [("n", False, False), ("r", True, False), ("w", False, True), ("b", True, True)],
    )
    @pytest.mark.parametrize("where", ["named", "default"])
    def test_each_letter_allows_what_it_says(self, tree, letter, reads, writes, where):
        perms = (("n", 1), (letter, 2)) if where == "named" else ((letter, 1),)
        tree.set_perms(dom1, DATA, perms)
        for allowed, call, args in (
            (reads, tree.read, ()),
            (reads, tree.directory, ()),
            (reads, tree.get_perms, ()),
            (writes, tree.write, (b"",)),
        ):
            if allowed:
                call(dom2, DATA, *args)
            else:
                refused("EACCES", call, dom2, DATA, *args)

    def test_the_first_entry_that_names_a_domain_counts(self, tree):
        tree.set_perms(dom1, DATA, (("b", 1), ("n", 2), ("b", 2)))
        refused("EACCES", tree.read, dom2, DATA)

    def test_who_has_a_target_has_its_rights_too(self, tree):
        model = DomainRecord(7, 0, QUOTA)
        refused("EACCES", tree.write, model, DATA, b"x")
        model.target = 1
        tree.write(model, DATA, b"x")
        tree.set_perms(model, DATA, (("r", 1),))
        refused("EPERM", tree.set_perms, model, DATA, (("r", 7),))

    def test_of_a_domain_that_is_gone_no_node_and_no_permission_is_left(self, tree):
        tree.write(dom1, f"{DATA}/a/b", b"")
        tree.set_perms(dom0, HOME, (("n", DOM0), ("r", 2), ("r", 1)))
        tree.set_perms(dom0, "@releaseDomain", (("n", DOM0), ("r", 1)))
        tree.forget(1)
        assert not tree.exists(DATA)
        assert tree.get_perms(dom0, HOME) == (("n", DOM0), ("r", 2))
        assert tree.get_perms(dom0, "@releaseDomain") == (("n", DOM0),)


def test_the_check_finds_a_node_that_its_parent_does_not_list():
    tree = Tree()
    tree.write(dom0, "/a/b", b"")
    del tree.nodes["/a"].kids.names["b"]
    assert "/a/b: its parent does not list it" in tree.check()
