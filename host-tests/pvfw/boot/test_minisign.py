"""Signature files, as Debian's minisign makes them and as somebody would make them to get by."""

import base64
import hashlib
import random

import pytest
from fixtures.minisigning import Forger, Minisign

from pvfw.boot.errors import NotSigned
from pvfw.boot.minisign import FILE_MAX, Digest, PublicKey, Signature

CONTENT = b"kernel" * 30000


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    return Minisign(tmp_path_factory.mktemp("minisign"))


@pytest.fixture(scope="module")
def signature(signer):
    return signer.sign("vmlinuz-1", CONTENT)


def outcome(public, content, raw):
    """Return why a signature file does not count, "" if it does."""
    try:
        Signature(raw).check(PublicKey(public), Digest().add(content).value())
    except NotSigned as e:
        return str(e)
    return ""


def test_what_minisign_signs_counts(signer, signature):
    assert outcome(signer.public, CONTENT, signature) == ""
    assert Signature(signature).names() == [b"vmlinuz-1"]
    assert outcome(signer.public, b"", signer.sign("empty", b"")) == ""


def test_what_the_forger_signs_is_minisign_s(signer):
    forger = Forger()
    signer.public, before = forger.public, signer.public
    try:
        assert signer.takes(CONTENT, forger.sign(CONTENT))
        assert outcome(forger.public, CONTENT, forger.sign(CONTENT)) == ""
    finally:
        signer.public = before


def test_another_content_does_not_count(signer, signature):
    for content in (CONTENT + b"x", CONTENT[:-1], b"", b"x" + CONTENT[1:]):
        assert outcome(signer.public, content, signature) == "the content is not what was signed"
        assert not signer.takes(content, signature)


def test_another_key_does_not_count(signer, signature, tmp_path):
    other = Minisign(tmp_path)
    assert outcome(other.public, CONTENT, signature) == "the content is not what was signed"
    with pytest.raises(NotSigned, match=r"signed by the key [0-9A-F]+, not [0-9A-F]+"):
        Signature(signature).check_comment(PublicKey(other.public))


def test_another_key_with_the_same_identifier_does_not_count():
    raw = Forger(secret=b"other" * 6 + b"xx").sign(CONTENT)
    assert outcome(Forger().public, CONTENT, raw) == "the content is not what was signed"


def test_the_signature_s_identifier_counts():
    raw = Forger().sign(CONTENT, id=b"87654321")
    assert outcome(Forger().public, CONTENT, raw) == "the content is not what was signed"


def test_the_legacy_format_is_refused_by_name(signer):
    legacy = signer.sign("vmlinuz-1", CONTENT, "-l")
    why = "a signature of the file itself: sign it by minisign -S -H"
    assert outcome(signer.public, CONTENT, legacy) == why
    forger = Forger()
    # The file is the hash of another: what was signed by one algorithm does not pass for the other.
    digest = hashlib.blake2b(CONTENT).digest()
    raw = forger.sign(digest, algorithm=b"Ed").split(b"\n")
    made = base64.b64decode(raw[1])
    raw[1] = base64.b64encode(b"ED" + made[2:])
    assert outcome(forger.public, CONTENT, b"\n".join(raw)) == ""
    raw[1] = base64.b64encode(b"ex" + made[2:])
    assert outcome(forger.public, CONTENT, b"\n".join(raw)) == "a signature of an unknown kind"


def test_a_changed_trusted_comment_does_not_count(signer, signature):
    raw = signature.replace(b"file:vmlinuz-1", b"file:vmlinuz-2")
    assert raw != signature
    assert outcome(signer.public, CONTENT, raw) == "the trusted comment is not what was signed"
    assert not signer.takes(CONTENT, raw)
    moved = Forger().sign(CONTENT, b"file:b", overall=b"file:a")
    why = "the trusted comment is not what was signed"
    assert outcome(Forger().public, CONTENT, moved) == why


def test_the_comment_of_another_signature_does_not_count(signer, signature):
    other = signer.sign("other", b"other").split(b"\n")
    raw = signature.split(b"\n")
    mixed = b"\n".join([*raw[:2], *other[2:]])
    assert outcome(signer.public, CONTENT, mixed) == "the trusted comment is not what was signed"


def test_the_untrusted_comment_may_be_anything(signer, signature):
    raw = b"untrusted comment: \xff\tfile:y" + signature[signature.index(b"\n") :]
    assert outcome(signer.public, CONTENT, raw) == ""


def test_a_file_that_is_cut_off_does_not_count(signer, signature):
    assert outcome(signer.public, CONTENT, signature[:-1]) == ""
    for size in range(len(signature) - 1):
        assert outcome(signer.public, CONTENT, signature[:size]), size


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: b"", "4 lines"),
        (lambda raw: raw + b"more\n", "4 lines"),
        (lambda raw: raw + b"\n", "4 lines"),
        (lambda raw: raw.replace(b"\n", b"\r\n"), "no text"),
        (lambda raw: raw.replace(b" secret", b"\0secret"), "no text"),
        (lambda raw: raw.replace(b"untrusted comment: ", b"comment: "), "comments"),
        (lambda raw: raw.replace(b"trusted comment: t", b"trusted comment:t"), "comments"),
        (lambda raw: raw.replace(b"=\n", b"\n"), "the signature is damaged"),
        (lambda raw: raw.replace(b"==\n", b"== \n"), "the signature is damaged"),
        (lambda raw: b"untrusted comment: " + bytes(FILE_MAX) + raw[18:], "4 lines"),
    ],
)
def test_what_is_no_signature_file_is_said(signer, signature, change, why):
    assert change(signature) != signature
    assert why in outcome(signer.public, CONTENT, change(signature))


@pytest.mark.parametrize(
    "text", ["", "x", "RWQ", "A" * 56, "R" + "é" * 55, "RWTT71DiNxF8U5laEKuN13xMx+B1cPwVp28qIrOt="]
)
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(NotSigned, match=r"the second line of minisign\.pub"):
        PublicKey(text)


@pytest.mark.fuzz("minisign")
def test_whatever_a_signature_file_says_minisign_takes_what_counts(fuzz, signer, signature):
    """What counts here counts for minisign, and is never a changed comment or content."""
    for seed in fuzz.seeds(400):
        choice = random.Random(seed)
        raw = bytearray(signature)
        for _ in range(choice.randint(1, 3)):
            at, act = choice.randrange(len(raw)), choice.randrange(5)
            if act == 0:
                raw[at] = choice.randrange(256)
            elif act == 1:
                raw[at : at + choice.choice((1, 2, 20))] = b""
            elif act == 2:
                raw[at:at] = choice.choice((b"\n", b"=", b" ", b"\0", b"A", b"file:x", raw[:at]))
            elif act == 3:
                raw[at] ^= 1 << choice.randrange(8)
            else:
                begin = choice.randrange(len(raw))
                raw[at:at] = raw[begin : begin + choice.randrange(100)]
            if not raw:
                raw = bytearray(b"\n")
        why = outcome(signer.public, CONTENT, bytes(raw))
        assert why.isprintable()
        fuzz.done[why.split(":")[0][:60] or "count"] += 1
        if not why:
            lines = bytes(raw).split(b"\n")
            assert lines[1:4] == signature.split(b"\n")[1:4]
            assert signer.takes(CONTENT, bytes(raw))
