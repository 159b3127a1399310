//! `close`: the end of the sandbox.

use std::time::Duration;

use api::rpc::{CloseParams, Failure};

use super::{Answer, Call};
use crate::host::Host;

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    call.host.close(grace(call.params()?)?).await?;
    Ok("{}".to_owned())
}

/// The time for a graceful end, if there is any.
fn grace(params: CloseParams) -> Result<Option<Duration>, Failure> {
    let seconds = params.timeout_seconds.unwrap_or(0.0);
    let grace = Duration::try_from_secs_f64(seconds)
        .map_err(|error| Failure::invalid_params(format!("timeout_seconds: {error}")))?;
    Ok((!grace.is_zero()).then_some(grace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_means_at_once_and_nonsense_is_refused() {
        let of = |timeout_seconds| grace(CloseParams { timeout_seconds });
        assert_eq!(of(None), Ok(None));
        assert_eq!(of(Some(0.0)), Ok(None));
        assert_eq!(of(Some(2.5)), Ok(Some(Duration::from_millis(2500))));
        assert!(of(Some(-1.0)).is_err());
        assert!(of(Some(1e300)).is_err());
    }
}
