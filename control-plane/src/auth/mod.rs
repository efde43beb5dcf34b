//! Who may do what: secrets, the one table of endpoints and roles, and the limits on guessing and
//! flooding. Knows no handler; decides before any of them runs.

mod buckets;
mod secret;
mod table;

pub(crate) use buckets::Buckets;
pub use secret::NoRandomness;
pub(crate) use secret::{Secret, hash, random_id};
pub(crate) use table::{Access, ENDPOINTS, Endpoint, EndpointSpec};

use crate::state::{Actor, OPERATOR, State};
use verge_config::api::Scope;

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Nobody in particular; at public endpoints only.
    Anyone,
    /// The holder of a token.
    Token { id: String, name: String, tenant: String, scopes: Vec<Scope> },
    /// An enrolled edge.
    Edge { id: String, name: String },
}

/// Why a request does not reach its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No credential, or none that is valid.
    Unauthenticated,
    /// A valid one that may not do this.
    Forbidden(Access),
}

/// Finds whose the secret is. The lookup is by SHA-256, so its time tells nothing of the secret.
pub(crate) fn identify(state: &State, secret: &str, now_ms: u64) -> Option<Caller> {
    let hash = hash(secret);
    if let Some(token) = state.tokens.get(&hash) {
        let alive = token.expires_ms.is_none_or(|end| end > now_ms);
        return alive.then(|| Caller::Token {
            id: token.id.clone(),
            name: token.name.clone(),
            tenant: token.tenant.clone(),
            scopes: token.scopes.clone(),
        });
    }
    let edge = state.edges.get(state.edge_secrets.get(&hash)?)?;
    Some(Caller::Edge { id: edge.id.clone(), name: edge.name.clone() })
}

/// Whether `caller` may use an endpoint with this access.
///
/// # Errors
/// That it may not, and whether a credential would help.
pub(crate) fn permit(caller: &Caller, access: Access) -> Result<(), Denied> {
    let permitted = match (access, caller) {
        (Access::Public, _) => true,
        (_, Caller::Anyone) => return Err(Denied::Unauthenticated),
        (Access::Edge | Access::EdgeOr(_), Caller::Edge { .. }) => true,
        (_, Caller::Edge { .. }) | (Access::Edge, _) => false,
        (Access::Tenant(wanted) | Access::EdgeOr(wanted), Caller::Token { scopes, .. }) => {
            wanted.iter().any(|scope| scopes.contains(scope))
        }
        (Access::Operator(wanted), Caller::Token { tenant, scopes, .. }) => {
            tenant == OPERATOR && wanted.iter().any(|scope| scopes.contains(scope))
        }
    };
    if permitted { Ok(()) } else { Err(Denied::Forbidden(access)) }
}

// === impl Caller ===

impl Caller {
    /// The tenant whose things it sees; an edge and anyone see no tenant's.
    pub(crate) fn tenant(&self) -> &str {
        match self {
            Caller::Token { tenant, .. } => tenant,
            Caller::Edge { .. } | Caller::Anyone => "",
        }
    }

    /// Whether it belongs to the operator's tenant.
    pub(crate) fn is_operator(&self) -> bool {
        self.tenant() == OPERATOR
    }

    /// As the state and the audit log name it.
    pub(crate) fn actor(&self) -> Actor {
        match self {
            Caller::Token { id, name, tenant, .. } => {
                Actor { id: id.clone(), name: name.clone(), tenant: tenant.clone() }
            }
            Caller::Edge { id, name } => {
                Actor { id: id.clone(), name: name.clone(), tenant: OPERATOR.to_owned() }
            }
            Caller::Anyone => {
                Actor { id: String::new(), name: String::new(), tenant: String::new() }
            }
        }
    }

    /// For the log: an id, never a secret.
    pub(crate) fn id(&self) -> &str {
        match self {
            Caller::Token { id, .. } | Caller::Edge { id, .. } => id,
            Caller::Anyone => "-",
        }
    }
}
