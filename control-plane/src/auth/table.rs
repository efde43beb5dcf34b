//! The one table of endpoints: method, path, who may use it, and what it is. The router, the guard,
//! the OpenAPI document and the tests are all made from it; an endpoint that is not here is not there.

use verge_config::api::Scope;

/// Who may use an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone; it tells nothing of any tenant.
    Public,
    /// A token with one of the scopes, on its own tenant's things.
    Tenant(&'static [Scope]),
    /// A token of the operator's tenant with one of the scopes.
    Operator(&'static [Scope]),
    /// An enrolled edge.
    Edge,
    /// An enrolled edge, or a token with one of the scopes on its own tenant's things.
    EdgeOr(&'static [Scope]),
}

const ADMIN: &[Scope] = &[Scope::Admin];
const DEPLOY: &[Scope] = &[Scope::Admin, Scope::Deploy];
const PURGE: &[Scope] = &[Scope::Admin, Scope::Purge];
const READ: &[Scope] = &[Scope::Admin, Scope::Deploy, Scope::Read];
const RECEIPTS: &[Scope] = &[Scope::Admin, Scope::Deploy, Scope::Purge, Scope::Read];
const JOIN: &[Scope] = &[Scope::Admin, Scope::Join];
const WATCH: &[Scope] = &[Scope::Admin, Scope::Read];

/// Every endpoint by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Health,
    Ready,
    Metrics,
    OpenApi,
    UploadVersion,
    ListVersions,
    GetVersion,
    ListSites,
    GetSite,
    RemoveSite,
    Activate,
    Rollback,
    CreatePreview,
    ListPreviews,
    RemovePreview,
    PutSecret,
    ListSecrets,
    RemoveSecret,
    EdgeSecrets,
    PutEntry,
    GetEntry,
    RemoveEntry,
    ListEntries,
    EdgePutEntry,
    EdgeGetEntry,
    EdgeRemoveEntry,
    EdgeListKeys,
    PutBlob,
    HeadBlob,
    GetBlob,
    Purge,
    ListPurges,
    GetPurge,
    Explain,
    Tail,
    Enrol,
    ListEdges,
    RemoveEdge,
    Report,
    Events,
    ReportUsage,
    Usage,
    Feed,
    CreateToken,
    ListTokens,
    RevokeToken,
    CreateTenant,
    ListTenants,
    Audit,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointSpec {
    pub(crate) endpoint: Endpoint,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) summary: &'static str,
}

const fn row(
    endpoint: Endpoint,
    method: &'static str,
    path: &'static str,
    access: Access,
    summary: &'static str,
) -> EndpointSpec {
    EndpointSpec { endpoint, method, path, access, summary }
}

/// The table.
#[rustfmt::skip]
pub(crate) const ENDPOINTS: &[EndpointSpec] = &[
    row(Endpoint::Health, "GET", "/healthz", Access::Public, "Whether the process runs"),
    row(Endpoint::Ready, "GET", "/readyz", Access::Public, "Whether it can answer: its store is open"),
    row(Endpoint::Metrics, "GET", "/metrics", Access::Operator(WATCH), "Metrics in the Prometheus text format"),
    row(Endpoint::OpenApi, "GET", "/v1/openapi.json", Access::Public, "This description"),
    row(Endpoint::ListSites, "GET", "/v1/sites", Access::Tenant(READ), "The tenant's sites"),
    row(Endpoint::GetSite, "GET", "/v1/sites/{site}", Access::Tenant(READ), "One site; its ETag is for If-Match"),
    row(Endpoint::RemoveSite, "DELETE", "/v1/sites/{site}", Access::Tenant(ADMIN), "Remove a site with its versions and cached objects; its name stays the tenant's"),
    row(Endpoint::UploadVersion, "POST", "/v1/sites/{site}/versions", Access::Tenant(DEPLOY), "Upload a version: JSON, or TOML with Content-Type application/toml"),
    row(Endpoint::ListVersions, "GET", "/v1/sites/{site}/versions", Access::Tenant(READ), "A site's versions, newest first"),
    row(Endpoint::GetVersion, "GET", "/v1/sites/{site}/versions/{version}", Access::Tenant(READ), "The document of a version"),
    row(Endpoint::Activate, "PUT", "/v1/sites/{site}/active", Access::Tenant(DEPLOY), "Make a version the one that edges serve"),
    row(Endpoint::Rollback, "POST", "/v1/sites/{site}/rollback", Access::Tenant(DEPLOY), "Go back to the version that was active before"),
    row(Endpoint::CreatePreview, "POST", "/v1/sites/{site}/versions/{version}/previews", Access::Tenant(DEPLOY), "Let the holder of a new token reach a version that is not active; the token is told once"),
    row(Endpoint::ListPreviews, "GET", "/v1/sites/{site}/previews", Access::Tenant(READ), "A site's previews without their tokens, newest first"),
    row(Endpoint::RemovePreview, "DELETE", "/v1/sites/{site}/previews/{preview}", Access::Tenant(DEPLOY), "End a preview"),
    row(Endpoint::PutSecret, "PUT", "/v1/sites/{site}/secrets/{secret}", Access::Tenant(DEPLOY), "Set a secret that the site's handlers read by its name; nobody but edges can read it back"),
    row(Endpoint::ListSecrets, "GET", "/v1/sites/{site}/secrets", Access::Tenant(READ), "A site's secrets by name, without their values"),
    row(Endpoint::RemoveSecret, "DELETE", "/v1/sites/{site}/secrets/{secret}", Access::Tenant(DEPLOY), "Remove a secret"),
    row(Endpoint::EdgeSecrets, "GET", "/v1/edges/self/secrets/{site}", Access::Edge, "A site's secrets with their values, for the edge that runs its handlers"),
    row(Endpoint::PutEntry, "PUT", "/v1/sites/{site}/kv/entry", Access::Tenant(DEPLOY), "Write the entry of a key of the site's key-value store: the value as it is"),
    row(Endpoint::GetEntry, "GET", "/v1/sites/{site}/kv/entry", Access::Tenant(READ), "The value of a key; its ETag is the revision of the last write"),
    row(Endpoint::RemoveEntry, "DELETE", "/v1/sites/{site}/kv/entry", Access::Tenant(DEPLOY), "Remove the entry of a key"),
    row(Endpoint::ListEntries, "GET", "/v1/sites/{site}/kv", Access::Tenant(READ), "The entries of the site's key-value store without their values, by key"),
    row(Endpoint::PutBlob, "PUT", "/v1/blobs/{digest}", Access::Tenant(DEPLOY), "Upload a component under its SHA-256"),
    row(Endpoint::HeadBlob, "HEAD", "/v1/blobs/{digest}", Access::EdgeOr(READ), "Whether a component is there"),
    row(Endpoint::GetBlob, "GET", "/v1/blobs/{digest}", Access::EdgeOr(READ), "A component"),
    row(Endpoint::Purge, "POST", "/v1/purges", Access::Tenant(PURGE), "Purge, or with dry_run count what the purge would be for; the answer is the receipt"),
    row(Endpoint::ListPurges, "GET", "/v1/purges", Access::Tenant(RECEIPTS), "The tenant's purges, newest first"),
    row(Endpoint::GetPurge, "GET", "/v1/purges/{purge}", Access::Tenant(RECEIPTS), "A purge's receipt"),
    row(Endpoint::Explain, "GET", "/v1/explanations", Access::Tenant(READ), "What every edge would do with a GET of a URL of the tenant's, and why"),
    row(Endpoint::Tail, "GET", "/v1/sites/{site}/tail", Access::Tenant(READ), "The site's requests on all edges as they end, with what handlers log: a stream of JSON lines"),
    row(Endpoint::Enrol, "POST", "/v1/edges", Access::Operator(JOIN), "Enrol an edge; the answer holds its credential"),
    row(Endpoint::ListEdges, "GET", "/v1/edges", Access::Tenant(RECEIPTS), "The edges with their lag; refusals of the tenant's own sites"),
    row(Endpoint::RemoveEdge, "DELETE", "/v1/edges/{edge}", Access::Operator(ADMIN), "Remove an edge; its credential ends"),
    row(Endpoint::Report, "POST", "/v1/edges/self/reports", Access::Edge, "What an edge has applied"),
    row(Endpoint::Events, "POST", "/v1/edges/self/events", Access::Edge, "Requests that somebody watches"),
    row(Endpoint::ReportUsage, "POST", "/v1/edges/self/usage", Access::Edge, "A numbered batch of what handlers have used; counted once"),
    row(Endpoint::Usage, "GET", "/v1/sites/{site}/usage", Access::Tenant(READ), "What a site's handlers have used, by handler and version, in whole hours; times in milliseconds since the Unix epoch"),
    row(Endpoint::EdgePutEntry, "PUT", "/v1/edges/self/kv/{site}/entry", Access::Edge, "Write an entry for a site's handler"),
    row(Endpoint::EdgeGetEntry, "GET", "/v1/edges/self/kv/{site}/entry", Access::Edge, "A value for a site's handler, with how new it is at least; 204 where there is no entry"),
    row(Endpoint::EdgeRemoveEntry, "DELETE", "/v1/edges/self/kv/{site}/entry", Access::Edge, "Remove an entry for a site's handler"),
    row(Endpoint::EdgeListKeys, "GET", "/v1/edges/self/kv/{site}", Access::Edge, "Keys for a site's handler, in their order"),
    row(Endpoint::Feed, "GET", "/v1/feed", Access::Edge, "The stream of changes: JSON lines"),
    row(Endpoint::CreateToken, "POST", "/v1/tokens", Access::Tenant(ADMIN), "Make a token; its secret is told once"),
    row(Endpoint::ListTokens, "GET", "/v1/tokens", Access::Tenant(ADMIN), "Tokens without their secrets; the operator sees all tenants'"),
    row(Endpoint::RevokeToken, "DELETE", "/v1/tokens/{token}", Access::Tenant(ADMIN), "Revoke a token"),
    row(Endpoint::CreateTenant, "POST", "/v1/tenants", Access::Operator(ADMIN), "Make a tenant"),
    row(Endpoint::ListTenants, "GET", "/v1/tenants", Access::Operator(ADMIN), "The tenants"),
    row(Endpoint::Audit, "GET", "/v1/audit", Access::Tenant(ADMIN), "Who did what; the operator sees all tenants'"),
];
