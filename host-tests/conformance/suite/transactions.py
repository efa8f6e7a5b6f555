"""Cases: transactions, alone, beside each other and beside plain requests."""

from xenpv import abi

from .case import abort, case, code, commit, listing, value

ABSENT = 0x7FFFFFFF


@case("inside new, outside old, then new")
async def changes_are_seen_outside_after_the_commit(here):
    await here.store.write(here("x"), "old")
    t = await here.begin()
    await t.write(here("x"), "new")
    inside = await value(t.read(here("x")))
    outside = await value(here.store.read(here("x")))
    await commit(t)
    later = await value(here.store.read(here("x")))
    return "inside %s, outside %s, then %s" % (inside, outside, later)


@case("inside ENOENT, outside old, then ENOENT")
async def removals_are_seen_outside_after_the_commit(here):
    await here.store.write(here("x/y"), "old")
    t = await here.begin()
    await t.rm(here("x"))
    inside = await value(t.read(here("x/y")))
    outside = await value(here.store.read(here("x/y")))
    await commit(t)
    later = await value(here.store.read(here("x")))
    return "inside %s, outside %s, then %s" % (inside, outside, later)


@case("old again")
async def a_transaction_sees_the_same_all_the_time(here):
    await here.store.write(here("x"), "old")
    t = await here.begin()
    first = await value(t.read(here("x")))
    await here.store.write(here("x"), "new")
    second = await value(t.read(here("x")))
    await abort(t)
    return "old again" if first == second == "old" else first + " " + second


@case("inside 'a b', outside 'a'")
async def directories_show_the_transaction_s_changes(here):
    await here.store.write(here("d/a"), "")
    t = await here.begin()
    await t.write(here("d/b"), "")
    inside = await listing(t.directory(here("d")))
    outside = await listing(here.store.directory(here("d")))
    await abort(t)
    return "inside '%s', outside '%s'" % (inside, outside)


@case("inside r7, outside none, then r7")
async def perms_are_part_of_a_transaction(here):
    await here.store.write(here("x"), "")
    t = await here.begin()
    await t.set_perms(here("x"), [("n", here.domid), ("r", 7)])
    inside = await t.get_perms(here("x"))
    outside = await here.store.get_perms(here("x"))
    await commit(t)
    later = await here.store.get_perms(here("x"))
    seen = ["r7" if ("r", 7) in perms else "none" for perms in (inside, outside, later)]
    return "inside %s, outside %s, then %s" % tuple(seen)


@case("ok ENOENT")
async def an_aborted_transaction_changes_nothing(here):
    t = await here.begin()
    await t.write(here("x"), "new")
    return await abort(t) + " " + await value(here.store.read(here("x")))


@case("ok new new")
async def a_failed_operation_does_not_spoil_its_transaction(here):
    t = await here.begin()
    await t.write(here("x"), "new")
    await value(t.read(here("absent")))
    await code(t.rm(here("absent/absent")))
    await t.write(here("y"), "new")
    done = await commit(t)
    seen = [done, await value(here.store.read(here("x"))), await value(here.store.read(here("y")))]
    return " ".join(seen)


@case("ok")
async def an_empty_transaction_can_be_committed(here):
    return await commit(await here.begin())


@case("ok")
async def a_transaction_that_read_what_nobody_changed_can_be_committed(here):
    await here.store.write(here("x"), "old")
    await here.store.write(here("z"), "old")
    t = await here.begin()
    await t.read(here("x"))
    await t.write(here("y"), "new")
    await here.store.write(here("z"), "new")
    return await commit(t)


@case("ok ok new new")
async def independent_transactions_are_both_committed(here):
    await here.store.mkdir(here("a/x"))
    await here.store.mkdir(here("b/x"))
    first = await here.begin()
    second = await here.begin()
    await first.write(here("a/x"), "new")
    await second.write(here("b/x"), "new")
    seen = [await commit(first), await commit(second)]
    seen.append(await value(here.store.read(here("a/x"))))
    seen.append(await value(here.store.read(here("b/x"))))
    return " ".join(seen)


@case("ok ok")
async def children_of_different_parents_are_independent(here):
    await here.store.mkdir(here("a"))
    await here.store.mkdir(here("b"))
    first = await here.begin()
    second = await here.begin()
    await first.write(here("a/x"), "new")
    await second.write(here("b/x"), "new")
    return await commit(first) + " " + await commit(second)


@case("ok ok a b")
async def new_children_of_one_parent_are_independent(here):
    first = await here.begin()
    second = await here.begin()
    await first.write(here("a"), "")
    await second.write(here("b"), "")
    seen = [await commit(first), await commit(second)]
    return " ".join(seen) + " " + await listing(here.store.directory(here.base))


@case("EAGAIN foreign")
async def what_was_read_and_then_changed_by_another_is_eagain(here):
    await here.store.write(here("x"), "old")
    t = await here.begin()
    await t.read(here("x"))
    await t.write(here("y"), "new")
    await here.store.write(here("x"), "foreign")
    return await commit(t) + " " + await value(here.store.read(here("x")))


@case("EAGAIN foreign")
async def what_was_written_and_then_changed_by_another_is_eagain(here):
    await here.store.write(here("x"), "old")
    t = await here.begin()
    await t.write(here("x"), "new")
    await here.store.write(here("x"), "foreign")
    return await commit(t) + " " + await value(here.store.read(here("x")))


@case("ok EAGAIN 1")
async def two_that_write_one_node_are_not_both_committed(here):
    await here.store.write(here("x"), "0")
    first = await here.begin()
    second = await here.begin()
    await first.write(here("x"), "1")
    await second.write(here("x"), "2")
    seen = [await commit(first), await commit(second), await value(here.store.read(here("x")))]
    return " ".join(seen)


@case("EAGAIN")
async def what_was_not_there_and_then_made_by_another_is_eagain(here):
    t = await here.begin()
    await value(t.read(here("x")))
    await t.write(here("y"), "new")
    await here.store.write(here("x"), "foreign")
    return await commit(t)


@case("EAGAIN")
async def what_was_read_and_then_removed_by_another_is_eagain(here):
    await here.store.write(here("x"), "old")
    t = await here.begin()
    await t.read(here("x"))
    await t.write(here("y"), "new")
    await here.store.rm(here("x"))
    return await commit(t)


@case("EAGAIN")
async def a_listed_directory_that_another_adds_to_is_eagain(here):
    await here.store.mkdir(here("d"))
    t = await here.begin()
    await t.directory(here("d"))
    await t.write(here("y"), "new")
    await here.store.write(here("d/x"), "foreign")
    return await commit(t)


@case("EAGAIN")
async def removing_what_another_removed_is_eagain(here):
    await here.store.write(here("x"), "old")
    t = await here.begin()
    await t.rm(here("x"))
    await here.store.rm(here("x"))
    return await commit(t)


@case("EAGAIN, then ok")
async def a_refused_commit_can_be_tried_anew(here):
    await here.store.write(here("x"), "1")
    t = await here.begin()
    await t.read(here("x"))
    await t.write(here("x"), "2")
    await here.store.write(here("x"), "3")
    first = await commit(t)
    t = await here.begin()
    await t.read(here("x"))
    await t.write(here("x"), "4")
    return first + ", then " + await commit(t)


@case("2 times, 11")
async def work_is_done_again_until_it_is_committed(here):
    await here.store.write(here("x"), "0")
    times = []

    async def work(t):
        found = await t.read_int(here("x"))
        if not times:
            await here.store.write(here("x"), "10")
        times.append(found)
        await t.write(here("x"), str(found + 1))

    await here.store.transact(work)
    return "%d times, %s" % (len(times), await value(here.store.read(here("x"))))


@case("ENOENT ENOENT")
async def an_ended_transaction_is_gone(here):
    t = await here.begin()
    await commit(t)
    return await value(t.read(here("x"))) + " " + await commit(t)


@case("EAGAIN ENOENT")
async def a_refused_transaction_is_gone(here):
    await here.store.write(here("x"), "old")
    t = await here.begin()
    await t.write(here("x"), "new")
    await here.store.write(here("x"), "foreign")
    return await commit(t) + " " + await commit(t)


@case("ENOENT ENOENT")
async def an_unknown_transaction_is_enoent(here):
    path = here.base.encode() + b"\0"
    ended = await here.raw(abi.XS_TRANSACTION_END, b"T\0", ABSENT)
    return await here.raw(abi.XS_READ, path, ABSENT) + " " + ended


@case("ENOENT")
async def ending_no_transaction_is_enoent(here):
    return await here.raw(abi.XS_TRANSACTION_END, b"T\0")


@case("EBUSY")
async def a_transaction_in_a_transaction_is_refused(here):
    t = await here.begin()
    seen = await here.raw(abi.XS_TRANSACTION_START, b"\0", t.tx_id)
    await abort(t)
    return seen


@case("EINVAL, then ok")
async def the_end_is_t_or_f(here):
    t = await here.begin()
    seen = await here.raw(abi.XS_TRANSACTION_END, b"X\0", t.tx_id)
    return seen + ", then " + await abort(t)


@case("ENOENT")
async def resetting_watches_ends_transactions(here):
    t = await here.begin()
    await here.store.reset_watches()
    return await value(t.read(here.base))
