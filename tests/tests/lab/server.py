# Sends 32 MiB to whoever says g, 4 to whoever says s, and compares what follows a p with the first of them.
import hashlib
import socket
import socketserver

DATA = b''.join(hashlib.sha256(b'%d' % n).digest() for n in range(2**20))
SUM = hashlib.sha256(DATA).hexdigest()


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        wish = self.request.recv(1)
        if wish in b'gs':
            self.request.sendall(DATA if wish == b'g' else DATA[: 4 * 2**20])
            return
        digest, length = hashlib.sha256(), 0
        while got := self.request.recv(65536):
            digest.update(got)
            length += len(got)
        same = 'the same' if digest.hexdigest() == SUM else 'something else'
        self.request.sendall(f'{length} bytes arrived, {same}\n'.encode())


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


with Server(('::', 7001), Handler) as server:
    print(SUM, '', flush=True)
    server.serve_forever()
