"""The hypercalls of pvdumpd: their constants and layouts are Xen's, and another Xen is refused."""

import pytest

from pvdump.dom0 import hypercalls
from pvdump.dom0.hypercalls import HEAD, INFO, HypercallError, interface, parse_info
from tools.xenheaders import evaluate, offset, public

# struct xen_domctl_getdomaininfo as far as it is read, and what this file calls its fields.
FIELDS = ["domain", "pad1", "flags", "tot_pages", "cpu_time", "handle"]
UUID = "3f0c1b52-6f61-4b0e-8d2e-0a1b2c3d4e5f"


def info(flags: int) -> bytes:
    handle = bytes.fromhex(UUID.replace("-", ""))
    return INFO.pack(7, 0, flags, *range(7), 1, 0, 0, handle)


def names() -> dict[str, str]:
    """The expression of each constant."""
    found = [name for name in public(hypercalls) if name.startswith(("XEN_", "HYPERVISOR_"))]
    return {name: name.replace("HYPERVISOR_", "__HYPERVISOR_") for name in found}


def test_the_constants_are_those_of_the_headers() -> None:
    expected = evaluate(list(names().values()))
    assert len(expected) > 8
    assert {name: getattr(hypercalls, name) for name in names()} == {
        name: expected[text] for name, text in names().items()
    }


def test_the_request_is_the_structure_of_the_headers() -> None:
    size = offset("xen_domctl", "u")
    places = [offset("xen_domctl_getdomaininfo", name) for name in FIELDS]
    found = evaluate([size, *places])
    assert found[size] == HEAD.size
    assert [found[place] for place in places] == [0, 2, 4, 8, 56, INFO.size - 16]


def test_the_version_of_the_headers_is_the_one_in_the_table() -> None:
    # Debian 12 has Xen 4.17.
    name = "XEN_DOMCTL_INTERFACE_VERSION"
    assert interface((4, 17)) == evaluate([name])[name]


def test_an_unknown_xen_is_refused_by_name() -> None:
    with pytest.raises(HypercallError, match=r"^Xen 4\.99: .* Xen 4\.13 to 4\.22; install a newer"):
        interface((4, 99))


def test_a_domain_that_is_down_has_a_reason() -> None:
    found = parse_info(info(0b110 | 5 << 16))
    assert found == (7, UUID, False, True, 5, False)


def test_a_domain_that_runs_has_none() -> None:
    assert parse_info(info(0b1000010)).reason is None


def test_a_machine_without_xen_is_told_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercalls, "PRIVCMD", "/dev/xen/none")
    with pytest.raises(HypercallError, match=r"/dev/xen/none: No such file.*root in dom0"):
        hypercalls.Hypercalls()
