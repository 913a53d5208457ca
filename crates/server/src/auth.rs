//! Who asks, and whether they may.

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use cutover_api::Code;

use crate::{front::Front, problem::Refusal, tokens::Role};

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The token's name.
    pub(crate) name: String,
    pub(crate) role: Role,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Refusal::internal(&"a request that nobody has looked at"))
    }
}

/// Lets those pass whose token has at least this role.
pub(crate) async fn require(State((front, least)): State<(Front, Role)>, mut request: Request, next: Next) -> Response {
    match identify(&front, request.headers()).and_then(|caller| allow(caller, least)) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Without any token, whoever reaches the server may do everything: it is started like that only where that was wanted.
fn identify(front: &Front, headers: &HeaderMap) -> Result<Caller, Refusal> {
    if front.open && front.tokens.is_unused() {
        return Ok(Caller { name: "anybody".to_owned(), role: Role::Admin });
    }
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let text = bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()));
    let Some(text) = text else {
        return Err(
            Refusal::new(Code::Unauthorized, "a token is needed").hint("send `Authorization: Bearer …`; `cutover token create` makes one")
        );
    };
    let unknown =
        || Refusal::new(Code::Unauthorized, "the token is not known, or has expired").hint("`cutover token create` makes another");
    let token = front.tokens.find(text).ok_or_else(unknown)?;
    Ok(Caller { name: token.name, role: token.role })
}

fn allow(caller: Caller, least: Role) -> Result<Caller, Refusal> {
    if caller.role >= least {
        return Ok(caller);
    }
    let role = |role: Role| format!("{role:?}").to_lowercase();
    let message = format!("`{}` is a {}; this wants {} or more", caller.name, role(caller.role), role(least));
    Err(Refusal::new(Code::Forbidden, message))
}
