//! `/token`, the token service (distribution's "Token Authentication Specification" and its `OAuth2` form).
//!
//! Owns: the form of requests and answers, and completing challenges with the address of the service. Refuses: who gets
//! a token for what (`access`).

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::context::RequestContext;
use super::error::Failure;
use super::reply::{self, Reply};
use crate::access::{
    Caller, Challenge, InvalidScope, IssuedToken, Refused, Scope, TOKEN_PATH, TokenIssuer,
};
use crate::frontends::error_body::JSON;
use crate::oci::Code;
use crate::registry::{Error, Source as _};
use crate::transport::query;

/// Largest body of a request.
const FORM_BYTES_MAX: usize = 64 << 10;
/// The grant of a token for another one (RFC 8693 section 2.1).
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// Types of tokens (RFC 8693 section 3).
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const SUBJECT_TOKENS: [&str; 3] = [
    "urn:ietf:params:oauth:token-type:id_token",
    JWT,
    ACCESS_TOKEN,
];
/// Most scopes of a token.
const SCOPES_MAX: usize = 100;

/// Answers GET (the credentials are in the head) and POST (they are in the body).
pub(super) async fn handle(context: RequestContext<'_>) -> Reply {
    let Some(issuer) = context.state.tokens.clone() else {
        let message = "this registry has no token service, because it asks for no credentials";
        return Err(Failure::other(
            StatusCode::NOT_FOUND,
            Code::Unsupported,
            message,
        ));
    };
    if context.head.method == Method::POST {
        return by_form(context, &issuer).await;
    }
    let caller = &context.requester.caller;
    let scopes: Vec<_> = query::all(context.head, "scope").collect();
    let wanted = scopes.iter().flat_map(|text| text.split(' '));
    let offline = query::all(context.head, "offline_token").any(|value| value == "true");
    let issued = issue(&context, &issuer, caller, wanted).await?;
    let mut fields = fields(&issued)?;
    if let Some(refresh) = refresh_token(&issuer, caller, offline)? {
        insert(&mut fields, "refresh_token", refresh);
    }
    answer(&fields)
}

/// Answers the `OAuth2` form.
async fn by_form(context: RequestContext<'_>, issuer: &TokenIssuer) -> Reply {
    let mut body = Vec::new();
    while let Some(piece) = context.body.next().await? {
        if body.len() + piece.len() > FORM_BYTES_MAX {
            return Err(invalid("the request is too large"));
        }
        body.extend_from_slice(&piece);
    }
    let form = Form::read(&body);
    drop(body);
    let client = context.client.connection().client;
    let caller = match &*form.grant_type {
        "password" => {
            let logged_in = issuer.log_in(client, &form.username, &form.password);
            logged_in.await?
        }
        "refresh_token" => issuer.refresh(&form.refresh_token),
        EXCHANGE => exchange(issuer, &form).await?,
        _ => {
            let message = "grant_type must be password, refresh_token or token-exchange (RFC 8693)";
            return Err(invalid(message));
        }
    };
    let caller = caller.ok_or_else(refused)?;
    let offline = form.access_type == "offline" && form.grant_type == "password";
    let is_exchange = form.grant_type == EXCHANGE;
    let issued = issue(&context, issuer, &caller, form.scope.split(' ')).await?;
    let mut fields = fields(&issued)?;
    let scopes: Vec<_> = issued.granted.iter().map(Scope::to_string).collect();
    // It may be less than what was asked for.
    insert(&mut fields, "scope", scopes.join(" "));
    insert(&mut fields, "token_type", "Bearer".to_owned());
    if is_exchange {
        insert(&mut fields, "issued_token_type", ACCESS_TOKEN.to_owned());
    }
    if let Some(refresh) = refresh_token(issuer, &caller, offline)? {
        insert(&mut fields, "refresh_token", refresh);
    }
    answer(&fields)
}

/// Returns whom the token of a workload logs in (RFC 8693 section 2.1).
async fn exchange(issuer: &TokenIssuer, form: &Form) -> Result<Option<Caller>, Failure> {
    if !SUBJECT_TOKENS.contains(&&*form.subject_token_type) {
        return Err(invalid(
            "subject_token_type must be id_token, jwt or access_token, each with its whole URN",
        ));
    }
    if !["", ACCESS_TOKEN, JWT].contains(&&*form.requested_token_type) {
        return Err(invalid("requested_token_type must be access_token or jwt"));
    }
    Ok(issuer.exchange(form.subject_token.clone()).await?)
}

/// Issues a refresh token, if one was asked for.
fn refresh_token(
    issuer: &TokenIssuer,
    caller: &Caller,
    offline: bool,
) -> Result<Option<String>, Failure> {
    if !offline {
        return Ok(None);
    }
    Ok(issuer.issue_refresh(caller).map_err(Error::internal)?)
}

/// The fields of the form that are used.
#[derive(Default)]
struct Form {
    grant_type: String,
    username: String,
    password: String,
    refresh_token: String,
    access_type: String,
    subject_token: String,
    subject_token_type: String,
    requested_token_type: String,
    /// All scopes, with spaces between them.
    scope: String,
}

impl Form {
    fn read(body: &[u8]) -> Self {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            let field = match &*name {
                "grant_type" => &mut form.grant_type,
                "username" => &mut form.username,
                "password" => &mut form.password,
                "refresh_token" => &mut form.refresh_token,
                "access_type" => &mut form.access_type,
                "subject_token" => &mut form.subject_token,
                "subject_token_type" => &mut form.subject_token_type,
                "requested_token_type" => &mut form.requested_token_type,
                "scope" => {
                    form.scope = format!("{} {value}", form.scope);
                    continue;
                }
                _ => continue,
            };
            *field = value.into_owned();
        }
        form
    }
}

async fn issue<'a>(
    context: &RequestContext<'_>,
    issuer: &TokenIssuer,
    caller: &Caller,
    wanted: impl Iterator<Item = &'a str>,
) -> Result<IssuedToken, Failure> {
    // A token is for a password, not for another token.
    if caller.scope.is_some() {
        return Err(refused().into());
    }
    let mut scopes: Vec<Scope> = Vec::new();
    for text in wanted.filter(|text| !text.is_empty()) {
        if scopes.len() == SCOPES_MAX {
            return Err(invalid("too many scopes"));
        }
        let scope = text.parse();
        scopes.push(scope.map_err(|error: InvalidScope| invalid(&error.to_string()))?);
    }
    let mut granted = issuer.granted(caller, scopes);
    // Only of what was granted, so that nothing is told of other repositories, also not by the time that it takes.
    for scope in &mut granted {
        if scope.kind == "repository"
            && let Ok(name) = scope.name.parse()
        {
            scope.incarnation = context.registry().incarnation(&name).await?;
        }
    }
    Ok(issuer.issue(caller, granted).map_err(Error::internal)?)
}

/// Returns the fields of every answer.
fn fields(issued: &IssuedToken) -> Result<Map<String, Value>, Failure> {
    let issued_at = i64::try_from(issued.issued_unix_s).unwrap_or_default();
    let issued_at = OffsetDateTime::from_unix_timestamp(issued_at).map_err(Error::internal)?;
    let mut fields = Map::new();
    insert(&mut fields, "token", issued.token.clone());
    insert(&mut fields, "access_token", issued.token.clone());
    fields.insert("expires_in".to_owned(), issued.lifetime.as_secs().into());
    let issued_at = issued_at.format(&Rfc3339).map_err(Error::internal)?;
    insert(&mut fields, "issued_at", issued_at);
    Ok(fields)
}

fn insert(fields: &mut Map<String, Value>, name: &str, value: String) {
    fields.insert(name.to_owned(), value.into());
}

fn answer(fields: &Map<String, Value>) -> Reply {
    let text = serde_json::to_string(fields).map_err(Error::internal)?;
    let builder = Response::builder()
        .status(StatusCode::OK)
        .header(header::CACHE_CONTROL, "no-store");
    reply::json_with(builder, JSON, text.into())
}

fn refused() -> Refused {
    Refused::Unauthenticated(Challenge(HeaderValue::from_static(
        "Basic realm=\"Tonnage\"",
    )))
}

fn invalid(message: &str) -> Failure {
    Failure::other(StatusCode::BAD_REQUEST, Code::Unsupported, message)
}

/// Makes the realm of a challenge for a token a whole address, if it is only the path.
pub(super) fn complete_challenge(headers: &mut HeaderMap, base: &str) {
    let Some(challenge) = headers.get(header::WWW_AUTHENTICATE) else {
        return;
    };
    let path = format!("realm=\"{TOKEN_PATH}\"");
    let whole = format!("realm=\"{base}{TOKEN_PATH}\"");
    let completed = challenge
        .to_str()
        .unwrap_or_default()
        .replace(&path, &whole);
    if let Ok(completed) = HeaderValue::try_from(completed) {
        headers.insert(header::WWW_AUTHENTICATE, completed);
    }
}
