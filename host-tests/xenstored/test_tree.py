"""The nodes of the store: permissions, removal, transactions."""

import pytest

from pvdump.xenstored.tree import DOM0, StoreError, Transaction, Tree

HOME = "/local/domain/1"


@pytest.fixture
def tree():
    tree = Tree()
    tree.write(DOM0, HOME, b"")
    tree.set_perms(DOM0, HOME, (("n", DOM0), ("r", 1)))
    tree.write(DOM0, f"{HOME}/data", b"")
    tree.set_perms(DOM0, f"{HOME}/data", (("n", 1),))
    tree.take_changes()
    return tree


def refused(code, call, *args):
    with pytest.raises(StoreError) as error:
        call(*args)
    assert error.value.code == code


def test_a_write_makes_its_parents_empty(tree):
    tree.write(1, f"{HOME}/data/a/b", b"x")
    assert tree.read(1, f"{HOME}/data/a") == b""
    assert tree.directory(1, f"{HOME}/data") == ["a"]


def test_children_come_in_the_order_they_were_made(tree):
    for name in ("z", "a", "m"):
        tree.mkdir(1, f"{HOME}/data/{name}")
    assert tree.directory(1, f"{HOME}/data") == ["z", "a", "m"]


def test_mkdir_of_a_node_that_is_there_changes_nothing(tree):
    tree.write(1, f"{HOME}/data/a", b"x")
    tree.mkdir(1, f"{HOME}/data/a")
    assert tree.read(1, f"{HOME}/data/a") == b"x"


def test_a_guest_owns_what_it_makes_and_others_may_do_as_the_parent_lets_them(tree):
    tree.write(1, f"{HOME}/data/a", b"x")
    assert tree.get_perms(1, f"{HOME}/data/a") == (("n", 1),)
    refused("EACCES", tree.read, 2, f"{HOME}/data/a")


def test_outside_of_its_own_nodes_a_guest_can_write_nothing(tree):
    refused("EACCES", tree.write, 1, f"{HOME}/name", b"x")
    refused("EACCES", tree.mkdir, 1, "/local/domain/2/data")
    refused("EACCES", tree.rm, 1, HOME)


def test_an_absent_node_is_enoent_before_anything_else(tree):
    refused("ENOENT", tree.read, 2, f"{HOME}/data/nothing")
    refused("ENOENT", tree.directory, 1, "/nothing")


def test_rm_of_an_absent_node_is_fine_where_its_parent_is_there(tree):
    tree.rm(1, f"{HOME}/data/nothing")
    refused("ENOENT", tree.rm, 1, f"{HOME}/data/nothing/below")
    refused("EINVAL", tree.rm, DOM0, "/")


def test_rm_takes_all_below_and_tells_what_went(tree):
    tree.write(1, f"{HOME}/data/a/b", b"")
    tree.write(1, f"{HOME}/data/ab", b"")
    tree.take_changes()
    tree.rm(1, f"{HOME}/data/a")
    (change,) = tree.take_changes()
    assert change.path == f"{HOME}/data/a"
    assert change.removed == {f"{HOME}/data/a", f"{HOME}/data/a/b"}
    assert tree.directory(1, f"{HOME}/data") == ["ab"]


@pytest.mark.parametrize("path", ["", "a", "//", "/a/", "/a//b", "/a b", "/a\0", "/" + "a" * 3072])
def test_what_is_no_path_is_einval(tree, path):
    refused("EINVAL", tree.read, DOM0, path)


def test_only_the_owner_gives_permissions_and_only_domain_0_gives_a_node_away(tree):
    path = f"{HOME}/data"
    refused("EACCES", tree.set_perms, 2, path, (("b", 2),))
    refused("EPERM", tree.set_perms, 1, path, (("n", 2),))
    tree.set_perms(1, path, (("n", 1), ("b", 2)))
    tree.write(2, f"{path}/from2", b"hello")


class TestTransaction:
    def test_nobody_sees_it_before_it_commits(self, tree):
        transaction = Transaction(tree)
        transaction.write(1, f"{HOME}/data/a", b"x")
        assert transaction.read(1, f"{HOME}/data/a") == b"x"
        refused("ENOENT", tree.read, 1, f"{HOME}/data/a")
        transaction.commit()
        assert tree.read(1, f"{HOME}/data/a") == b"x"
        assert [change.path for change in tree.take_changes()] == [f"{HOME}/data/a"]

    def test_two_that_share_nothing_both_commit(self, tree):
        one, two = Transaction(tree), Transaction(tree)
        one.write(1, f"{HOME}/data/a", b"1")
        two.write(1, f"{HOME}/data/b", b"2")
        one.commit()
        two.commit()
        assert tree.directory(1, f"{HOME}/data") == ["a", "b"]

    def test_what_it_read_must_not_have_changed(self, tree):
        tree.write(1, f"{HOME}/data/a", b"1")
        transaction = Transaction(tree)
        transaction.read(1, f"{HOME}/data/a")
        transaction.write(1, f"{HOME}/data/b", b"1")
        tree.write(1, f"{HOME}/data/a", b"2")
        refused("EAGAIN", transaction.commit)
        refused("ENOENT", tree.read, 1, f"{HOME}/data/b")

    def test_a_node_that_it_did_not_find_must_not_have_come(self, tree):
        transaction = Transaction(tree)
        refused("ENOENT", transaction.read, 1, f"{HOME}/data/a")
        tree.write(1, f"{HOME}/data/a", b"2")
        refused("EAGAIN", transaction.commit)

    def test_a_list_of_children_that_it_read_must_not_have_changed(self, tree):
        transaction = Transaction(tree)
        transaction.directory(1, f"{HOME}/data")
        tree.write(1, f"{HOME}/data/a", b"2")
        refused("EAGAIN", transaction.commit)

    def test_its_own_writes_are_no_news_to_it(self, tree):
        transaction = Transaction(tree)
        transaction.write(1, f"{HOME}/data/a", b"1")
        transaction.read(1, f"{HOME}/data/a")
        transaction.directory(1, f"{HOME}/data/a")
        transaction.rm(1, f"{HOME}/data/a")
        transaction.commit()
