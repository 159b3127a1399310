"""What is no plain HTTP: sockets.py DIRECTORY CERTIFICATES WEBSOCKET GRPC TCP

At the address WEBSOCKET an echo on ports 80 and 443; at GRPC a service on 443 (TLS) and 80 (none); at TCP
an echo on port 7, one that speaks first on port 25, one over TLS with another protocol than HTTP on port
853, one that resets on port 9 when it is spoken to, and a UDP echo on port 9999. DIRECTORY/sockets.jsonl gets a
line for every connection and message.
"""

import asyncio
import json
import ssl
import struct
import socket
import sys

import grpc
import websockets

HOME, CERTIFICATES, WEBSOCKET, GRPC, TCP = sys.argv[1:]
LOG = open(f"{HOME}/sockets.jsonl", "a", buffering=1)


def log(service, **what):
    LOG.write(json.dumps({"service": service, **what}) + "\n")


def context(*protocols):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(f"{CERTIFICATES}/good.pem")
    made.set_alpn_protocols(list(protocols))
    return made


async def websocket(connection, path):
    log("websocket", path=path, headers=list(connection.request_headers.raw_items()))
    async for message in connection:
        log("websocket", message=repr(message[:4096]))
        await connection.send(message)


def service():
    """Echo.Once, Echo.Stream (three answers), Echo.Chat (an answer to each), Echo.Fail; bytes all."""

    def seen(method, request, call):
        log("grpc", method=method, message=repr(request[:4096]), metadata=list(map(tuple, call.invocation_metadata())))

    async def once(request, call):
        seen("Once", request, call)
        call.set_trailing_metadata([("x-trailer", "set")])
        return request

    async def stream(request, call):
        seen("Stream", request, call)
        for number in range(3):
            yield b"%d %b" % (number, request)

    async def chat(requests, call):
        async for request in requests:
            seen("Chat", request, call)
            yield request

    async def fail(request, call):
        await call.abort(grpc.StatusCode.NOT_FOUND, "no such thing")

    return grpc.method_handlers_generic_handler(
        "Echo",
        {
            "Once": grpc.unary_unary_rpc_method_handler(once),
            "Stream": grpc.unary_stream_rpc_method_handler(stream),
            "Chat": grpc.stream_stream_rpc_method_handler(chat),
            "Fail": grpc.unary_unary_rpc_method_handler(fail),
        },
    )


async def serve_grpc():
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    server.add_generic_rpc_handlers((service(),))
    pem = open(f"{CERTIFICATES}/good.pem", "rb").read()
    server.add_secure_port(f"{GRPC}:443", grpc.ssl_server_credentials([(pem, pem)]))
    server.add_insecure_port(f"{GRPC}:80")
    await server.start()
    return server


def echo(name, greeting=b""):
    async def serve(reader, writer):
        log(name, connected=True)
        writer.write(greeting)
        try:
            while data := await reader.read(65536):
                log(name, message=repr(data[:4096]))
                writer.write(data)
                await writer.drain()
            log(name, ended=True)
            writer.close()
        except (ConnectionError, ssl.SSLError) as error:
            log(name, broken=repr(error))

    return serve


async def reset(reader, writer):
    log("reset", message=repr(await reader.read(100)))
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, client):
        log("udp", message=repr(data[:4096]))
        self.transport.sendto(data, client)


async def main():
    for port, tls in [(80, None), (443, context("http/1.1"))]:
        await websockets.serve(websocket, WEBSOCKET, port, ssl=tls, max_size=None, ping_interval=None)
    await asyncio.start_server(echo("echo"), TCP, 7, backlog=4096)
    await asyncio.start_server(echo("greeting", b"220 good.test speaks first\r\n"), TCP, 25)
    await asyncio.start_server(echo("tls"), TCP, 853, ssl=context("dot"))
    await asyncio.start_server(reset, TCP, 9)
    await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, (TCP, 9999))
    _server = await serve_grpc()
    print("ready: sockets\n", end="", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
