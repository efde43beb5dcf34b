"""Varnish: one pool of threads, storage in RAM, its log reduced to nothing, no command line."""

from machine import Server, free_port

# What Varnish writes to its log in memory for each request unless it is masked.
LOGGED = (
    "Begin End Link Timestamp ReqStart ReqMethod ReqURL ReqProtocol ReqHeader ReqUnset ReqAcct Hit "
    "RespStatus RespReason RespProtocol RespHeader RespUnset VCL_call VCL_return Length"
)


def start(stage, program):
    port = free_port()
    host, origin_port = stage.origin.address.split(":")
    vcl = stage.template("varnish.vcl", "varnish.vcl", host=host, port=origin_port)
    folder = stage.folder / "varnish"
    folder.mkdir()
    parameters = {
        "thread_pools": 1,
        "thread_pool_min": 100,
        "thread_pool_max": 500,
        "timeout_idle": 300,
        "vsl_mask": ",".join(f"-{tag}" for tag in LOGGED.split()),
        "http_gzip_support": "off",
    }
    arguments = [program, "-F", "-n", folder, "-f", vcl, "-a", f"127.0.0.1:{port}"]
    arguments += ["-s", "malloc,2G", "-T", "none"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}={value}"]
    return Server("varnish", stage.folder, arguments, port)
