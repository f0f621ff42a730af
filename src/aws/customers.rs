//! Which customers there are, as far as AWS knows.

use std::collections::BTreeSet;

use super::{Aws, AwsError};
use crate::customer::CustomerId;

impl Aws {
    /// Every customer with a parameter, or with a host that has not ended. No value of a parameter is read.
    pub async fn customers(&self) -> Result<BTreeSet<CustomerId>, AwsError> {
        let (names, hosts) = futures::try_join!(
            self.parameter_names("/m8trx"),
            self.customers_instances(None),
        )?;
        let with_parameter = names
            .iter()
            .filter_map(|name| name.strip_prefix("/m8trx/")?.split_once('/'))
            .filter_map(|(id, _)| id.parse().ok());
        let with_host = hosts
            .iter()
            .filter(|host| host.state != "terminated" && host.state != "shutting-down")
            .filter_map(|host| host.customer.as_deref()?.parse().ok());
        Ok(with_parameter.chain(with_host).collect())
    }
}
