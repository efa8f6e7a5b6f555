"""Memory in pieces, as sinks take it."""


def buffers(data, *sizes):
    """The data in pieces of these sizes, and the rest."""
    found = []
    for size in (*sizes, len(data)):
        found.append(memoryview(bytearray(data[:size])))
        data = data[size:]
    return [buffer for buffer in found if len(buffer)]


def room(*sizes):
    return [memoryview(bytearray(size)) for size in sizes]
