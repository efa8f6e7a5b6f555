"""The cases in which a server differs from what the suite expects, and the page that lists them.

The rule: a server shows exactly what is written here or, without an entry, what the suite expects.
An entry whose deviation is no longer seen is an error, too.
"""

from pathlib import Path

from .suite.all import CASES, DOM0, GUEST

OURS = "ours"
C417 = "xenstored 4.17"
C420 = "xenstored 4.20"
OCAML = "oxenstored 4.17"
SERVERS = {
    OURS: "pvdump xenstored, over a guest's ring and over its socket",
    C417: "C xenstored of Debian 12, in a PVH guest on Xen 4.17",
    C420: "C xenstored of Debian 13, in a PVH guest on Xen 4.20",
    OCAML: "oxenstored of Debian 12, in a PVH guest on Xen 4.17",
}
PAGE = Path(__file__).resolve().parents[2] / "docs/xenstore-servers.md"

FEATURES = "GET_FEATURE and SET_FEATURE are optional and not there"
QUOTAS = "GET_QUOTA and SET_QUOTA are optional and not there"
PART = "DIRECTORY_PART is optional and not there"
DEPTH = "WATCHDEPTH is not among its server_features: a watch has two words"
COUNTS = "it compares with its quota, {}, before it counts the new one"
PARENT = "a new child is a change of its parent, and both transactions change it"
GONE = "an unknown transaction is an error it does not foresee, and those are EIO"
REPLAY = "its commit does the requests again, and refuses only if one is answered otherwise"
QUOTA = "its quotas have an error of their own"

# (server, case) -> (what is seen, why)
DEVIATIONS = {
    (OURS, "the_quotas_are_named"): (
        "nodes watches transactions node-size",
        "the quota of permissions is called node-permissions, as in C xenstored since 4.18",
    ),
    **{
        (server, name): (seen, why)
        for server in (C417, C420, OCAML)
        for name, seen, why in (
            ("a_guest_may_ask_for_its_features", "ENOSYS", FEATURES),
            ("a_guest_may_not_ask_for_another_s_features", "ENOSYS ENOSYS", FEATURES),
            ("a_guest_may_not_see_or_set_quotas", "ENOSYS ENOSYS ENOSYS", QUOTAS),
            ("depth_limits_what_is_told", "raises EINVAL", DEPTH),
        )
    },
    **{
        (server, name): (seen, why)
        for server in (C417, C420)
        for name, seen, why in (
            ("watches_are_counted", "E2BIG after 129", COUNTS.format(128)),
            ("transactions_are_counted", "ENOSPC after 11", COUNTS.format(10)),
            ("new_children_of_one_parent_are_independent", "ok EAGAIN a", PARENT),
        )
    },
    **{
        (OCAML, name): (seen, why)
        for name, seen, why in (
            ("an_ended_transaction_is_gone", "EIO EIO", GONE),
            (
                "a_refused_transaction_is_gone",
                "ok EIO",
                GONE + "; and it refused nothing: " + REPLAY,
            ),
            ("an_unknown_transaction_is_enoent", "EIO EIO", GONE),
            ("resetting_watches_ends_transactions", "EIO", GONE),
            ("a_connection_made_again_has_nothing_of_the_old", "value, EIO, events none", GONE),
            ("what_was_written_and_then_changed_by_another_is_eagain", "ok new", REPLAY),
            ("two_that_write_one_node_are_not_both_committed", "ok ok 2", REPLAY),
            ("removing_what_another_removed_is_eagain", "ok", REPLAY),
            ("watches_are_counted", "EQUOTA after 101", QUOTA + "; " + COUNTS.format(100)),
            ("transactions_are_counted", "EQUOTA after 11", QUOTA + "; " + COUNTS.format(10)),
            ("nodes_are_counted", "EQUOTA", QUOTA),
            ("a_node_is_not_large", "ok E2BIG", "its quota of a value's size is answered so"),
            (
                "a_node_s_children_are_part_of_its_size",
                "no end",
                "it limits a value's size, 2048, not a node's",
            ),
            ("a_guest_s_node_has_few_perms", "5 ok, 6 ok", "it does not limit a node's perms"),
            ("directory_larger_than_a_payload_is_whole", "raises ENOSYS", PART),
            ("a_part_of_a_directory_needs_an_offset", "ENOSYS ENOSYS ENOSYS", PART),
            ("a_part_beyond_a_directory_s_end_is_empty", "ENOSYS", PART),
            (
                "a_guest_may_not_control",
                "ok ok ok",
                "it answers a guest with an empty reply and does nothing",
            ),
            (
                "a_transaction_s_end_is_a_word",
                "EINVAL ENOENT",
                "it takes the word without its NUL, and finds no transaction",
            ),
            ("a_relative_path_has_up_to_2048_bytes", "EINVAL EINVAL", "its quota is 1024 bytes"),
            (
                "a_relative_path_to_read_has_up_to_2048_bytes",
                "EINVAL EINVAL",
                "its quota is 1024 bytes",
            ),
            (
                "a_special_name_is_no_node",
                "EACCES",
                "it looks at the rights before it looks at the name",
            ),
            (
                "a_guest_gives_no_node_away",
                "EACCES nme",
                "all that a guest may not do is EACCES",
            ),
            (
                "what_is_not_there_below_a_hidden_node_is_hidden_too",
                "ENOENT",
                "it says of every absent node that it is absent",
            ),
            (
                "a_watch_of_what_was_not_there_is_not_told_of_its_parent_s_removal",
                "a/absent",
                "it tells all watches below a removed node, whether theirs was there or not",
            ),
            (
                "a_watch_in_a_transaction_is_set_at_once",
                "raises RingCorrupt",
                "its reply has tx_id 0, where the request's is due",
            ),
        )
    },
}


def expected(server, role):
    """What each case of a role has to show on a server."""
    wanted = {case.name: case.expected[role] for case in CASES if role in case.expected}
    own = {name: seen for (where, name), (seen, _) in DEVIATIONS.items() if where == server}
    return {name: own.get(name, seen) for name, seen in wanted.items()}


def page():
    """Make the text of docs/xenstore-servers.md."""
    guests = sum(GUEST in case.expected for case in CASES)
    dom0s = sum(DOM0 in case.expected for case in CASES)
    lines = [
        "# Differences between xenstore servers",
        "",
        "The conformance suite, `host-tests/conformance`, writes this page. It runs each case on",
        "each server and expects what Xen's docs/misc/xenstore.txt says; the second table lists",
        f"the exceptions. {guests} cases are a guest's, {dom0s} domain 0's, only on our socket.",
        "",
        "| server | which | cases that differ |",
        "|---|---|---|",
    ]
    for server, which in SERVERS.items():
        count = sum(where == server for where, _ in DEVIATIONS)
        lines.append(f"| {server} | {which} | {count} |")
    lines += ["", "| case | expected | server | shows | because |", "|---|---|---|---|---|"]
    for case in CASES:
        lines += _rows(case)
    lines += [
        "",
        "To renew this page after a change of the suite: `pytest host-tests/conformance` with",
        "`PVDUMP_RENEW=1` in the environment.",
    ]
    return "\n".join(lines) + "\n"


def _rows(case):
    """One row for all servers that show the same for the same reason."""
    alike = {}
    for server in SERVERS:
        if (server, case.name) in DEVIATIONS:
            alike.setdefault(DEVIATIONS[server, case.name], []).append(server)
    name = case.name.replace("_s_", "'s_").replace("_", " ")
    wanted = " / ".join(f"`{seen}`" for seen in dict.fromkeys(case.expected.values()))
    for (seen, why), servers in alike.items():
        yield f"| {name} | {wanted} | {', '.join(servers)} | `{seen}` | {why} |"
