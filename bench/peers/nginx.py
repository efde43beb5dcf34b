"""nginx: one worker, proxy_cache on a RAM disk (or a disk), open files kept, sendfile, no access log."""

import grp
import os
import pwd

from machine import Server, free_port


def start(stage, program, cache=None, tls=False):
    port, tls_port = free_port(), free_port() if tls else None
    listen = ""
    if tls:
        cert, key = stage.bench.certificate()
        listen = f"listen 127.0.0.1:{tls_port} ssl http2 backlog=4096;\n"
        listen += f"        ssl_certificate {cert};\n        ssl_certificate_key {key};"
    config = stage.template(
        "nginx.conf",
        "nginx.conf",
        port=port,
        tls=listen,
        cache=cache or stage.folder / "nginx-cache",
        # A worker of root's nginx would run as nobody, who may not write into the folder.
        user=pwd.getpwuid(os.getuid()).pw_name,
        group=grp.getgrgid(os.getgid()).gr_name,
    )
    arguments = [program, "-c", config, "-p", stage.folder, "-e", stage.folder / "nginx-error.log"]
    return Server("nginx", stage.folder, arguments, port, tls_port)
