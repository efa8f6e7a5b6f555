"""Transactions: what they see, when they commit, and what they cost."""

import pytest

from pvdump.xenstored.domain import DOM0, QUOTAS, DomainRecord, StoreError
from pvdump.xenstored.nodes import names_of
from pvdump.xenstored.transaction import Transaction
from pvdump.xenstored.tree import Tree

D = "/data"
QUOTA = {name: quota.default for name, quota in QUOTAS.items()}
dom0, dom1 = DomainRecord(DOM0, 0, QUOTA), DomainRecord(1, 0, QUOTA)


@pytest.fixture
def tree():
    tree = Tree()
    tree.write(dom0, D, b"")
    tree.set_perms(dom0, D, (("n", 1),))
    tree.take_changes()
    yield tree
    assert tree.check() == []


def again(transaction):
    with pytest.raises(StoreError) as error:
        transaction.commit()
    assert error.value.code == "EAGAIN"


def test_nobody_sees_it_before_it_commits(tree):
    transaction = Transaction(tree, dom1)
    transaction.write(dom1, f"{D}/a", b"x")
    assert transaction.read(dom1, f"{D}/a") == b"x"
    assert not tree.exists(f"{D}/a")
    assert tree.take_changes() == []
    transaction.commit()
    assert tree.read(dom1, f"{D}/a") == b"x"
    assert [change.path for change in tree.take_changes()] == [f"{D}/a"]


def test_two_that_make_different_nodes_in_one_place_both_commit(tree):
    one, two = Transaction(tree, dom1), Transaction(tree, dom1)
    one.write(dom1, f"{D}/a", b"1")
    two.write(dom1, f"{D}/b", b"2")
    one.commit()
    two.commit()
    assert names_of(tree.directory(dom1, D)) == ["a", "b"]


def test_one_that_writes_a_node_and_one_that_makes_a_child_of_it_both_commit(tree):
    one, two = Transaction(tree, dom1), Transaction(tree, dom1)
    one.write(dom1, D, b"1")
    two.write(dom1, f"{D}/b", b"2")
    one.commit()
    two.commit()
    assert tree.read(dom1, f"{D}/b") == b"2"


def test_what_it_read_must_not_have_been_written(tree):
    tree.write(dom1, f"{D}/a", b"1")
    transaction = Transaction(tree, dom1)
    transaction.read(dom1, f"{D}/a")
    transaction.write(dom1, f"{D}/b", b"1")
    tree.write(dom1, f"{D}/a", b"1")
    again(transaction)
    assert not tree.exists(f"{D}/b")


def test_what_it_wrote_must_not_have_been_written(tree):
    tree.write(dom1, f"{D}/a", b"1")
    one, two = Transaction(tree, dom1), Transaction(tree, dom1)
    one.write(dom1, f"{D}/a", b"one")
    two.write(dom1, f"{D}/a", b"two")
    one.commit()
    again(two)
    assert tree.read(dom1, f"{D}/a") == b"one"


def test_two_that_make_the_same_node_do_not_both_commit(tree):
    one, two = Transaction(tree, dom1), Transaction(tree, dom1)
    one.mkdir(dom1, f"{D}/a")
    two.mkdir(dom1, f"{D}/a")
    one.commit()
    again(two)


def test_a_node_that_it_did_not_find_must_not_have_come(tree):
    transaction = Transaction(tree, dom1)
    with pytest.raises(StoreError):
        transaction.read(dom1, f"{D}/a")
    tree.write(dom1, f"{D}/a", b"2")
    again(transaction)


def test_children_that_it_listed_must_not_have_changed(tree):
    transaction = Transaction(tree, dom1)
    transaction.directory(dom1, D)
    tree.write(dom1, f"{D}/a", b"2")
    again(transaction)


def test_what_it_removed_must_not_have_grown(tree):
    tree.write(dom1, f"{D}/a/b", b"")
    transaction = Transaction(tree, dom1)
    transaction.rm(dom1, f"{D}/a")
    tree.write(dom1, f"{D}/a/b/c", b"")
    again(transaction)


def test_the_place_of_a_node_it_made_must_still_be_there(tree):
    tree.mkdir(dom1, f"{D}/a")
    transaction = Transaction(tree, dom1)
    transaction.write(dom1, f"{D}/a/b", b"")
    tree.rm(dom1, f"{D}/a")
    again(transaction)


def test_permissions_that_allowed_it_must_still_be_there(tree):
    transaction = Transaction(tree, dom1)
    transaction.write(dom1, f"{D}/a", b"")
    tree.set_perms(dom0, D, (("n", DOM0),))
    again(transaction)


def test_what_it_saw_once_it_sees_again(tree):
    tree.write(dom1, f"{D}/a", b"1")
    transaction = Transaction(tree, dom1)
    assert transaction.read(dom1, f"{D}/a") == b"1"
    assert names_of(transaction.directory(dom1, D)) == ["a"]
    tree.write(dom1, f"{D}/a", b"2")
    tree.write(dom1, f"{D}/b", b"2")
    assert transaction.read(dom1, f"{D}/a") == b"1"
    assert names_of(transaction.directory(dom1, D)) == ["a"]


class TestOvertaken:
    """Others changed what it saw: it cannot commit, and goes on in some way until then."""

    def test_by_a_node_that_came_after_it_was_found_absent(self, tree):
        tree.mkdir(dom1, f"{D}/a")
        transaction = Transaction(tree, dom1)
        assert not transaction.exists(f"{D}/a/b")
        tree.write(dom1, f"{D}/a/b", b"")
        transaction.rm(dom1, f"{D}/a")
        again(transaction)

    def test_by_a_node_that_went_after_it_was_listed(self, tree):
        tree.write(dom1, f"{D}/a/b", b"")
        transaction = Transaction(tree, dom1)
        assert names_of(transaction.directory(dom1, f"{D}/a")) == ["b"]
        tree.rm(dom1, f"{D}/a/b")
        transaction.rm(dom1, f"{D}/a")
        again(transaction)

    def test_by_the_end_of_the_parent_of_a_node_that_it_wrote(self, tree):
        tree.write(dom1, f"{D}/a/b", b"")
        transaction = Transaction(tree, dom1)
        transaction.write(dom1, f"{D}/a/b", b"mine")
        tree.rm(dom1, f"{D}/a")
        transaction.write(dom1, f"{D}/a/c", b"")
        transaction.rm(dom1, f"{D}/a/b")
        again(transaction)


def test_its_own_writes_are_no_news_to_it(tree):
    transaction = Transaction(tree, dom1)
    transaction.write(dom1, f"{D}/a", b"1")
    transaction.read(dom1, f"{D}/a")
    transaction.directory(dom1, f"{D}/a")
    transaction.rm(dom1, f"{D}/a")
    transaction.commit()
    assert tree.take_changes() == []


def test_a_node_removed_and_made_again_has_nothing_of_its_old_self(tree):
    tree.write(dom1, f"{D}/a/b", b"old")
    tree.write(dom1, f"{D}/z", b"")
    transaction = Transaction(tree, dom1)
    transaction.rm(dom1, f"{D}/a")
    transaction.write(dom1, f"{D}/a/c", b"new")
    assert names_of(transaction.directory(dom1, f"{D}/a")) == ["c"]
    transaction.commit()
    assert names_of(tree.directory(dom1, D)) == ["z", "a"]
    assert names_of(tree.directory(dom1, f"{D}/a")) == ["c"]
    assert not tree.exists(f"{D}/a/b")


def test_a_whole_branch_can_be_removed_and_made_again(tree):
    tree.write(dom1, f"{D}/a/b", b"old")
    transaction = Transaction(tree, dom1)
    transaction.rm(dom1, f"{D}/a")
    transaction.write(dom1, f"{D}/a/b", b"new")
    transaction.commit()
    assert tree.read(dom1, f"{D}/a/b") == b"new"


def test_children_removed_and_made_again_come_in_their_new_order(tree):
    for name in "xyz":
        tree.mkdir(dom1, f"{D}/{name}")
    transaction = Transaction(tree, dom1)
    for name in "xy":
        transaction.rm(dom1, f"{D}/{name}")
    for name in "yx":
        transaction.mkdir(dom1, f"{D}/{name}")
    assert names_of(transaction.directory(dom1, D)) == ["z", "y", "x"]
    transaction.commit()
    assert names_of(tree.directory(dom1, D)) == ["z", "y", "x"]


def test_it_tells_of_each_path_once_in_the_order_of_the_first_change(tree):
    transaction = Transaction(tree, dom1)
    for path in ("b", "a", "b"):
        transaction.write(dom1, f"{D}/{path}", b"")
    transaction.commit()
    assert [change.path for change in tree.take_changes()] == [f"{D}/b", f"{D}/a"]


def test_it_holds_no_more_than_it_touched(tree):
    for i in range(500):
        tree.write(dom1, f"{D}/{i}", b"")
    transaction = Transaction(tree, dom1)
    transaction.read(dom1, f"{D}/7")
    transaction.write(dom1, f"{D}/new", b"")
    assert set(transaction._held) == {f"{D}/7", f"{D}/new", D}


def test_the_generation_of_a_node_changes_with_its_children(tree):
    transaction = Transaction(tree, dom1)
    before, _ = transaction.directory_part(dom1, D)
    transaction.write(dom1, f"{D}/a", b"")
    after, names = transaction.directory_part(dom1, D)
    assert before != after
    assert names == b"a\0"
