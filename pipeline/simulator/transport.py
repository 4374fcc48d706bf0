"""Sends an answer: whole, or cut, stalled, spread over time or reset.

What aiohttp would never send is written to the transport directly.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web

from pipeline.simulator.error_responses import WireReply

Sleep = Callable[[float], Awaitable[None]]
_STALL_S = 60.0
_TRICKLE_S = 10.0
_TRICKLE_STEPS = 40


async def send(request: web.Request, reply: WireReply, fault: str, seconds: float | None, sleep: Sleep) -> web.Response:
    """Send one answer the way `fault` wants; the response that is returned goes nowhere when the connection is gone."""
    transport = request.transport
    if transport is None or not isinstance(transport, asyncio.Transport):
        return respond(reply)
    half = len(reply.body) // 2
    match fault:
        case "hang":
            await sleep(_STALL_S if seconds is None else seconds)
        case "cut_body":
            transport.write(_head(reply, len(reply.body)) + reply.body[:half])
            transport.close()
        case "cut_unframed":
            transport.write(_head(reply, None) + reply.body[:half])
            transport.close()
        case "reset_body":
            transport.write(_head(reply, len(reply.body)) + reply.body[:half])
            await sleep(0.05)  # the client reads some of it first
            _reset(transport)
        case "reset":
            _reset(transport)
        case "disconnect":
            transport.close()
        case "stall":
            transport.write(_head(reply, len(reply.body)) + reply.body[:half])
            await sleep(_STALL_S if seconds is None else seconds)
            transport.abort()
        case "trickle":
            await _trickle(transport, reply, _TRICKLE_S if seconds is None else seconds, sleep)
    return respond(reply)


def respond(reply: WireReply) -> web.Response:
    """Return the ordinary response."""
    headers = {**reply.headers, "Content-Type": reply.content_type}
    return web.Response(status=reply.status, body=reply.body, headers=headers)


def _head(reply: WireReply, length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} OK", f"Content-Type: {reply.content_type}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _trickle(transport: asyncio.Transport, reply: WireReply, seconds: float, sleep: Sleep) -> None:
    transport.write(_head(reply, len(reply.body)))
    step = max(1, -(-len(reply.body) // _TRICKLE_STEPS))
    for at in range(0, len(reply.body), step):
        if transport.is_closing():
            return
        transport.write(reply.body[at : at + step])
        await sleep(seconds / _TRICKLE_STEPS)
    transport.close()


def _reset(transport: asyncio.Transport) -> None:
    """Close so that the other side sees a reset instead of an end."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
