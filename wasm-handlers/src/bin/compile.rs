//! The compiler child as a program of its own, for tests; in production the edge re-executes itself.

fn main() -> std::process::ExitCode {
    verge_handlers::compile_child()
}
