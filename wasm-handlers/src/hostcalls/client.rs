//! `verge:edge/client`: who asks. Knows what the host tells of the visitor and looks nothing up.

use verge_config::site::Grant;

use super::bindings::verge::edge::client::{Host, Scheme, Tls, Visitor};
use super::bindings::verge::edge::types::Error;
use super::granted;
use crate::guest::State;

impl Host for State {
    fn get(&mut self) -> Result<Visitor, Error> {
        granted(self, Grant::Client)?;
        let visitor = self.call.host.visitor()?;
        Ok(Visitor {
            address: visitor.address.to_string(),
            scheme: if visitor.is_https { Scheme::Https } else { Scheme::Http },
            tls: visitor
                .tls
                .map(|tls| Tls { version: tls.version.to_owned(), server_name: tls.server_name }),
            country: visitor.country,
            edge: visitor.edge.to_string(),
        })
    }
}
