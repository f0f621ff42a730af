//! What answers in AWS's place, and answers that break off: both are repeated as AWS's own failures are.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, InterceptorContext,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// Keeps the status that a web page came with.
const STATUS_HEADER: &str = "x-m8trx-status";

/// Takes a web page for what it is. A call whose answer has no content counts every 200 as success otherwise: a page of a
/// proxy or a captive portal too, and nothing was done.
#[derive(Debug)]
pub(super) struct RefusePages;

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for RefusePages {
    fn name(&self) -> &'static str {
        "RefusePages"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let is_page = response
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind.to_ascii_lowercase().contains("text/html"));
        if is_page {
            let status = response.status().as_u16().to_string();
            response.headers_mut().insert(STATUS_HEADER, status);
            // Which is repeated, and ends as an error.
            *response.status_mut() = 503.try_into()?;
        }
        Ok(())
    }
}

/// The status that was answered.
pub(super) fn status(response: &HttpResponse) -> u16 {
    response
        .headers()
        .get(STATUS_HEADER)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| response.status().as_u16())
}

/// Repeats a call whose answer broke off: as one without an answer, it may have been carried out or not.
#[derive(Debug)]
pub(super) struct RepeatBroken;

impl ClassifyRetry for RepeatBroken {
    fn name(&self) -> &'static str {
        "RepeatBroken"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.output_or_error() {
            Some(Err(error)) if error.is_response_error() => RetryAction::transient_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }
}
