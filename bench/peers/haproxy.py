"""HAProxy: one thread, a `cache` large enough for 1 MiB objects, no log."""

from machine import Server, free_port


# Large responses leave in as many pieces as they fill buffers; 1 KiB ones do not care.
BUFFER = 16384


def start(stage, program, tls=False):
    port, tls_port = free_port(), free_port() if tls else None
    bind = ""
    if tls:
        cert, key = stage.bench.certificate()
        both = stage.folder / "haproxy.pem"
        both.write_text(cert.read_text() + key.read_text())
        bind = f"bind 127.0.0.1:{tls_port} ssl crt {both} alpn h2"
    config = stage.template("haproxy.cfg", "haproxy.cfg", port=port, tls=bind, bufsize=BUFFER)
    return Server("haproxy", stage.folder, [program, "-db", "-f", config], port, tls_port)
