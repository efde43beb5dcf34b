//! The description of the API, made from the table of endpoints, so that it can leave none out.

use crate::auth::{Access, ENDPOINTS, Endpoint, EndpointSpec};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, OpenApiBuilder, PathItem,
    PathsBuilder, Ref, RefOr, Required, ResponseBuilder, Type,
};

/// The bodies of the API, by name; a test holds them against what is really sent.
const SCHEMAS: &str = include_str!("schemas.json");

/// The parameters of every list.
const PAGE: &[&str] = &["limit", "cursor"];

/// What goes in and out at an endpoint.
struct Shape {
    /// Media type and schema of the request.
    body: Option<(&'static str, &'static str)>,
    query: &'static [&'static str],
    /// Status and content of the answer when all is well.
    answers: &'static [(&'static str, Content)],
}

/// The content of an answer.
enum Content {
    Nothing,
    /// One of the schemas.
    Json(&'static str),
    /// A page of one of the schemas.
    Page(&'static str),
    /// A stream of lines, each one of the schemas.
    Lines(&'static str),
    /// Another media type.
    Other(&'static str),
}

#[rustfmt::skip]
fn shape(endpoint: Endpoint) -> Shape {
    use Content::{Json, Lines, Nothing, Other, Page};
    let json = |schema| Some(("application/json", schema));
    let (body, query, answers): (_, &'static [&'static str], &'static [(&'static str, Content)]) = match endpoint {
        Endpoint::Health | Endpoint::Ready => (None, &[], &[("200", Other("text/plain"))]),
        Endpoint::Metrics => (None, &[], &[("200", Other("text/plain"))]),
        Endpoint::OpenApi => (None, &[], &[("200", Other("application/json"))]),
        Endpoint::UploadVersion => (json("SiteDocument"), &[], &[("201", Json("VersionInfo")), ("200", Json("VersionInfo"))]),
        Endpoint::ListVersions => (None, PAGE, &[("200", Page("VersionInfo"))]),
        Endpoint::GetVersion => (None, &[], &[("200", Json("SiteDocument"))]),
        Endpoint::ListSites => (None, PAGE, &[("200", Page("SiteInfo"))]),
        Endpoint::GetSite => (None, &[], &[("200", Json("SiteInfo"))]),
        Endpoint::RemoveSite => (None, &[], &[("200", Json("Activated"))]),
        Endpoint::Activate => (json("Activate"), &[], &[("200", Json("Activated"))]),
        Endpoint::Rollback => (None, &[], &[("200", Json("Activated"))]),
        Endpoint::CreatePreview => (json("NewPreview"), &[], &[("201", Json("PreviewCreated"))]),
        Endpoint::ListPreviews => (None, PAGE, &[("200", Page("PreviewInfo"))]),
        Endpoint::RemovePreview => (None, &[], &[("204", Nothing)]),
        Endpoint::PutSecret => (json("NewSecret"), &[], &[("201", Json("SecretInfo")), ("200", Json("SecretInfo"))]),
        Endpoint::ListSecrets => (None, PAGE, &[("200", Page("SecretInfo"))]),
        Endpoint::RemoveSecret => (None, &[], &[("204", Nothing)]),
        Endpoint::EdgeSecrets => (None, &[], &[("200", Json("SiteSecrets"))]),
        Endpoint::PutEntry => (Some(("application/octet-stream", "")), &["key"], &[("201", Json("EntryInfo")), ("200", Json("EntryInfo"))]),
        Endpoint::GetEntry => (None, &["key"], &[("200", Other("application/octet-stream"))]),
        Endpoint::RemoveEntry => (None, &["key"], &[("204", Nothing)]),
        Endpoint::ListEntries => (None, &["prefix", "limit", "cursor"], &[("200", Page("EntryInfo"))]),
        Endpoint::EdgePutEntry => (Some(("application/octet-stream", "")), &["key"], &[("200", Json("Written"))]),
        Endpoint::EdgeGetEntry => (None, &["key"], &[("200", Other("application/octet-stream")), ("204", Nothing)]),
        Endpoint::EdgeRemoveEntry => (None, &["key"], &[("200", Json("Written"))]),
        Endpoint::EdgeListKeys => (None, &["skip"], &[("200", Json("KeyPage"))]),
        Endpoint::PutBlob => (Some(("application/wasm", "")), &[], &[("201", Json("BlobInfo")), ("200", Json("BlobInfo"))]),
        Endpoint::HeadBlob => (None, &[], &[("200", Nothing)]),
        Endpoint::GetBlob => (None, &[], &[("200", Other("application/wasm"))]),
        Endpoint::Purge => (json("PurgeRequest"), &["wait", "timeout"], &[("201", Json("Receipt")), ("202", Json("Receipt")), ("200", Json("Receipt"))]),
        Endpoint::Explain => (None, &["url", "field", "wait", "timeout"], &[("200", Json("Explanations"))]),
        Endpoint::ListPurges => (None, &["site", "limit", "cursor"], &[("200", Page("Receipt"))]),
        Endpoint::GetPurge => (None, &["wait", "timeout"], &[("200", Json("Receipt"))]),
        Endpoint::Tail => (None, &["handler", "status", "outcome", "path", "edge", "sample", "query"], &[("200", Lines("TailLine"))]),
        Endpoint::Enrol => (json("Enrol"), &[], &[("201", Json("Enrolled"))]),
        Endpoint::ListEdges => (None, PAGE, &[("200", Page("EdgeInfo"))]),
        Endpoint::RemoveEdge => (None, &[], &[("204", Nothing)]),
        Endpoint::Report => (json("Report"), &[], &[("204", Nothing)]),
        Endpoint::Events => (json("Batch"), &[], &[("200", Json("Taken"))]),
        Endpoint::ReportUsage => (json("UsageReport"), &[], &[("200", Json("UsageAck"))]),
        Endpoint::Usage => (None, &["from", "to", "by", "limit", "cursor"], &[("200", Page("UsageRow"))]),
        Endpoint::Feed => (None, &["since", "history"], &[("200", Other("application/x-ndjson"))]),
        Endpoint::CreateToken => (json("NewToken"), &[], &[("201", Json("TokenCreated"))]),
        Endpoint::ListTokens => (None, PAGE, &[("200", Page("TokenInfo"))]),
        Endpoint::RevokeToken => (None, &[], &[("204", Nothing)]),
        Endpoint::CreateTenant => (json("NewTenant"), &[], &[("201", Json("TenantInfo"))]),
        Endpoint::ListTenants => (None, PAGE, &[("200", Page("TenantInfo"))]),
        Endpoint::Audit => (None, PAGE, &[("200", Page("AuditRow"))]),
    };
    Shape { body, query, answers }
}

/// The whole document, as JSON.
pub(super) fn document() -> Bytes {
    let mut paths = PathsBuilder::new();
    for spec in ENDPOINTS {
        paths = paths.path(spec.path, PathItem::new(method(spec.method), operation(spec)));
    }
    let schemas: BTreeMap<String, RefOr<Schema>> =
        serde_json::from_str(SCHEMAS).unwrap_or_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme("token", SecurityScheme::Http(bearer))
        .build();
    let info = InfoBuilder::new()
        .title("Verge control plane")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Errors are RFC 9457 problem documents. What belongs to another tenant is as if it were \
             not there: 404. POST takes an Idempotency-Key, remembered for 24 hours.",
        ))
        .build();
    let document =
        OpenApiBuilder::new().info(info).paths(paths.build()).components(Some(components)).build();
    serde_json::to_vec(&document).unwrap_or_default().into()
}

fn method(name: &str) -> HttpMethod {
    match name {
        "PUT" => HttpMethod::Put,
        "POST" => HttpMethod::Post,
        "DELETE" => HttpMethod::Delete,
        "HEAD" => HttpMethod::Head,
        _ => HttpMethod::Get,
    }
}

fn operation(spec: &EndpointSpec) -> OperationBuilder {
    let shape = shape(spec.endpoint);
    let text = || Some(ObjectBuilder::new().schema_type(Type::String).build());
    let mut operation = OperationBuilder::new()
        .operation_id(Some(format!("{:?}", spec.endpoint)))
        .summary(Some(spec.summary))
        .description(Some(who(spec.access)));
    let in_path = spec.path.split(['{', '}']).skip(1).step_by(2);
    for name in in_path {
        let place = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
        operation = operation.parameter(place.required(Required::True).schema(text()));
    }
    for name in shape.query {
        let place = ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Query);
        operation = operation.parameter(place.required(Required::False).schema(text()));
    }
    if let Some((kind, schema)) = shape.body {
        let content = ContentBuilder::new().schema(reference(schema)).build();
        let body = RequestBodyBuilder::new().content(kind, content);
        operation = operation.request_body(Some(body.required(Some(Required::True)).build()));
    }
    for (status, content) in shape.answers {
        operation = operation.response(*status, response(content));
    }
    let problem = ContentBuilder::new().schema(reference("Problem")).build();
    let problem = ResponseBuilder::new()
        .description("A problem")
        .content("application/problem+json", problem)
        .build();
    operation = operation.response("default", problem);
    match spec.access {
        Access::Public => operation,
        _ => operation.security(SecurityRequirement::new("token", Vec::<String>::new())),
    }
}

fn reference(schema: &str) -> Option<RefOr<Schema>> {
    (!schema.is_empty()).then(|| Ref::from_schema_name(schema).into())
}

fn response(content: &Content) -> utoipa::openapi::Response {
    let response = ResponseBuilder::new().description("Done");
    match content {
        Content::Nothing => response.build(),
        Content::Other(kind) => response.content(*kind, ContentBuilder::new().build()).build(),
        Content::Json(schema) => {
            let content = ContentBuilder::new().schema(reference(schema)).build();
            response.content("application/json", content).build()
        }
        Content::Lines(schema) => {
            let content = ContentBuilder::new().schema(reference(schema)).build();
            response.content("application/x-ndjson", content).build()
        }
        Content::Page(schema) => {
            let items = ArrayBuilder::new().items(Ref::from_schema_name(*schema));
            let next = ObjectBuilder::new().schema_type(Type::String);
            let page = ObjectBuilder::new()
                .property("items", items)
                .property("next", next)
                .required("items")
                .build();
            let content = ContentBuilder::new().schema(Some(Schema::Object(page))).build();
            response.content("application/json", content).build()
        }
    }
}

/// Who may use it, in words.
fn who(access: Access) -> String {
    let list = |scopes: &[verge_config::api::Scope]| {
        let names = scopes.iter().filter_map(|scope| match serde_json::to_value(scope) {
            Ok(Value::String(name)) => Some(name),
            _ => None,
        });
        names.collect::<Vec<_>>().join(" or ")
    };
    match access {
        Access::Public => "For everyone.".to_owned(),
        Access::Tenant(scopes) => format!("For tokens with the scope {}.", list(scopes)),
        Access::Operator(scopes) => {
            format!("For the operator's tokens with the scope {}.", list(scopes))
        }
        Access::Edge => "For enrolled edges.".to_owned(),
        Access::EdgeOr(scopes) => {
            format!("For enrolled edges and tokens with the scope {}.", list(scopes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_described_and_every_reference_leads_somewhere() {
        let document: Value = serde_json::from_slice(&document()).unwrap();
        for spec in ENDPOINTS {
            let operation = &document["paths"][spec.path][spec.method.to_lowercase()];
            assert_eq!(operation["summary"], spec.summary, "{} {}", spec.method, spec.path);
        }
        let text = document.to_string();
        let referenced: Vec<&str> = text
            .split("\"#/components/schemas/")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(referenced.len() > 20);
        for name in referenced {
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
