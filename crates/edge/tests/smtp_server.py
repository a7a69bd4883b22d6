"""A mail server for tests: aiosmtpd on loopback. It says its port, then every mail as one line of JSON.

Arguments: off | starttls | implicit, then a folder with cert.pem and key.pem.
With TLS it wants the user `toci` with the password `hush`. Mail to full@ is refused for now, to nobody@ for good.
"""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("full@"):
            return "452 no room"
        if address.startswith("nobody@"):
            return "550 who is that?"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": server.transport.get_extra_info("ssl_object") is not None,
            "hello": session.host_name,
            "user": session.auth_data.login.decode() if session.auth_data else None,
            "content": envelope.content.decode(),
        }
        print(json.dumps(mail), flush=True)
        return "250 taken"


def authenticator(server, session, envelope, mechanism, data):
    right = data.login == b"toci" and data.password == b"hush"
    return AuthResult(success=right, handled=False, auth_data=data)


async def main():
    mode, folder = sys.argv[1:]
    context = None
    if mode != "off":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder + "/cert.pem", folder + "/key.pem")

    def connection():
        if mode == "off":
            return SMTP(Handler())
        return SMTP(
            Handler(),
            tls_context=context if mode == "starttls" else None,
            require_starttls=mode == "starttls",
            authenticator=authenticator,
            auth_required=True,
            auth_require_tls=mode == "starttls",
        )

    loop = asyncio.get_running_loop()
    implicit = context if mode == "implicit" else None
    server = await loop.create_server(connection, "127.0.0.1", 0, ssl=implicit)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
