//! Site files, as tests write them: their text, with the parts that most tests share.

use crate::origin::Origin;

/// A site that answers any host and takes all paths from one origin, as its responses say.
#[must_use]
pub fn plain(origin: &Origin) -> String {
    with_routes(origin, "[[routes]]\npath = \"/*\"\norigin = \"web\"\n")
}

/// A site that answers any host, with one origin `web`, and the text given after it.
#[must_use]
pub fn with_routes(origin: &Origin, rest: &str) -> String {
    for_domains("test", &["*"], origin, rest)
}

/// A site with these domains, with one origin `web`, and the text given after it.
#[must_use]
pub fn for_domains(name: &str, domains: &[&str], origin: &Origin, rest: &str) -> String {
    let url = origin.url();
    format!("site = {name:?}\ndomains = {domains:?}\n\n[origins.web]\nurls = [{url:?}]\n\n{rest}")
}
