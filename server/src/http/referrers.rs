//! `/v2/<name>/referrers/<digest>` (distribution-spec, "Listing Referrers")

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{Exchange, Reply, headers, query};
use crate::access::Pull;
use crate::oci::{Digest, RepositoryName, media_type::OCI_INDEX};
use crate::registry::{Error, Referrer};

pub(super) async fn list(exchange: &Exchange<'_>, name: RepositoryName, subject: Digest) -> Reply {
    let pull = exchange.authorize(Pull(name))?;
    // A media type has no spaces: one here is a plus that the client did not escape.
    let filter = query::first(exchange.head, "artifactType").map(|text| text.replace(' ', "+"));
    let filter = filter.filter(|text| !text.is_empty());
    let after = query::first(exchange.head, "last")
        .map(|last| last.parse())
        .transpose();
    let after: Option<Digest> = after.map_err(Error::DigestInvalid)?;
    let page = exchange
        .registry()
        .list_referrers(&pull, subject, filter.as_deref(), after)
        .await?;

    let mut builder = Response::builder().status(StatusCode::OK);
    if filter.is_some() {
        builder = builder.header(headers::OCI_FILTERS_APPLIED, "artifactType");
    }
    if let Some(next) = page.next {
        let next = next.to_string();
        let filter = filter.as_deref().map(|filter| ("artifactType", filter));
        let query = query::encode(filter.into_iter().chain([("last", next.as_str())]));
        let path = format!("/v2/{}/referrers/{subject}", pull.repository());
        builder = builder.header(header::LINK, headers::next_link(&path, &query));
    }
    let manifests: Vec<Value> = page.referrers.into_iter().map(descriptor).collect();
    let text = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    let media_type = HeaderValue::from_static(OCI_INDEX);
    headers::json_with(builder, media_type, text.to_string().into())
}

fn descriptor(referrer: Referrer) -> Value {
    let mut fields = Map::new();
    fields.insert("mediaType".to_owned(), referrer.media_type.into());
    fields.insert("digest".to_owned(), referrer.digest.to_string().into());
    fields.insert("size".to_owned(), referrer.length.into());
    if let Some(artifact_type) = referrer.artifact_type {
        fields.insert("artifactType".to_owned(), artifact_type.into());
    }
    if !referrer.annotations.is_empty() {
        let annotations = referrer
            .annotations
            .into_iter()
            .map(|(key, value)| (key, value.into()));
        fields.insert(
            "annotations".to_owned(),
            Value::Object(annotations.collect()),
        );
    }
    Value::Object(fields)
}
