"""An NBD server that does what a test wants, on a unix socket.

Used by test_nbd_network.py. It serves one client after the other, and checks that each request
keeps within its block sizes.
"""

import contextlib
import socket
import struct
import threading

from pvdump.blkback import nbdhandshake as shake
from pvdump.blkback.nbd import FLUSH, READ, REPLY, REPLY_MAGIC, REQUEST, TRIM, WRITE

EINVAL = 22
HAS_FLAGS, SEND_FLUSH = 1, shake.NBD_FLAG_SEND_FLUSH


class NbdServer:
    """A server of `data`.

    sizes: minimum, preferred and maximum block size, None for a server that tells none; flags: of
    the handshake; of_export: flags of the export; go: the reply to NBD_OPT_GO if it is refused;
    errors: answers to the next requests instead of doing them, None for one that is done; asked:
    (command, offset, length) of each request.
    """

    def __init__(self, path, size=1 << 20, sizes=None, flags=3, of_export=0, go=None):
        self.data = bytearray(size)
        self.sizes, self.flags, self.of_export, self.go = sizes, flags, of_export, go
        self.errors, self.asked = [], []
        self.options = []
        self.address = f"nbd+unix:///disk?socket={path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connection = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        self._thread.join()
        self._listener.close()

    def hang_up(self):
        """End the connection that there is."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def _serve(self):
        while True:
            try:
                self._connection, _ = self._listener.accept()
            except OSError:
                return
            with self._connection, contextlib.suppress(OSError, EOFError):
                self._greet()
                while self._request():
                    pass

    def _take(self, size):
        data = b""
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _greet(self):
        send = self._connection.sendall
        send(struct.pack(">QQH", shake.NBDMAGIC, shake.IHAVEOPT, self.flags))
        self._take(4)
        about = struct.pack(shake.EXPORT, len(self.data), HAS_FLAGS | self.of_export)
        while True:
            _, option, length = struct.unpack(">QII", self._take(16))
            self._take(length)
            self.options.append(option)
            if option == shake.NBD_OPT_EXPORT_NAME:
                send(about + bytes(0 if self.flags & 2 else 124))
                return
            if self.go is not None:
                self._reply(option, self.go, b"")
                continue
            self._reply(option, shake.NBD_REP_INFO, struct.pack(">H", 0) + about)
            if self.sizes:
                self._reply(option, shake.NBD_REP_INFO, struct.pack(">HIII", 3, *self.sizes))
            self._reply(option, shake.NBD_REP_ACK, b"")
            return

    def _reply(self, option, kind, data):
        head = struct.pack(shake.OPTION_REPLY, shake.REPLYMAGIC, option, kind, len(data))
        self._connection.sendall(head + data)

    def _request(self):
        """Do one request. Returns whether there may be another."""
        head = self._take(struct.calcsize(REQUEST))
        _, _, command, handle, offset, length = struct.unpack(REQUEST, head)
        if command not in (READ, WRITE, FLUSH, TRIM):
            return False
        data = self._take(length) if command == WRITE else b""
        self.asked.append((command, offset, length))
        error = self.errors.pop(0) if self.errors else None
        if error is None:
            error = self._check(command, offset, length)
        reply = struct.pack(REPLY, REPLY_MAGIC, error, handle)
        if not error and command == WRITE:
            self.data[offset : offset + length] = data
        elif not error and command == READ:
            reply += self.data[offset : offset + length]
        self._connection.sendall(reply)
        return True

    def _check(self, command, offset, length):
        if self.sizes is None or command not in (READ, WRITE):
            return 0
        least, _, most = self.sizes
        return 0 if offset % least == length % least == 0 and length <= most else EINVAL
