//! The OpenAPI document. It is checked in as `docs/openapi.json`.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};

/// The document without its routes.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("toci")
        .version("1")
        .description(Some(
            "Leases on test environments. Durations are seconds (`_s`), moments microseconds since the epoch (`_us`). \
             The word after `token` says which role is needed: read_only, client, operator, host.",
        ))
        .build();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = ComponentsBuilder::new()
        .security_scheme("token", SecurityScheme::Http(bearer))
        // What event streams carry is named in descriptions only.
        .schema_from::<toci_wire::api::Operation>()
        .schema_from::<toci_wire::api::OperationKind>()
        .schema_from::<toci_wire::api::Lagged>()
        .schema_from::<toci_wire::api::Gone>()
        .schema_from::<toci_wire::api::ConsoleText>()
        .build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// The whole document.
#[must_use]
pub fn document() -> OpenApi {
    super::router::described().1
}

#[cfg(test)]
mod tests {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

    /// `cargo xtask openapi` runs it with `TOCI_UPDATE`, which writes the file anew.
    #[test]
    fn the_checked_in_document_is_the_one_that_is_served() {
        let mut text = super::document().to_pretty_json().unwrap();
        text.push('\n');
        if std::env::var_os("TOCI_UPDATE").is_some() {
            std::fs::write(FILE, &text).unwrap();
        }
        let kept = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(
            kept == text,
            "docs/openapi.json differs from the API: run `cargo xtask openapi` and review the change"
        );
    }
}
