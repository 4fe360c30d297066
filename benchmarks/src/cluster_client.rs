//! The standalone client of Nameko.

use nameko::{Cluster, Config, ServiceProxy};

use crate::{hello::Failure, task_caller::Operation};

pub(crate) struct ClusterClient {
    _cluster: Cluster,
    service: ServiceProxy,
}

impl ClusterClient {
    pub(crate) async fn connect(uri: &str, service: &str) -> Result<Self, Failure> {
        let cluster = Cluster::connect(&Config::default().with("AMQP_URI", uri)).await?;
        Ok(Self {
            service: cluster.service(service),
            _cluster: cluster,
        })
    }
}

impl Operation for ClusterClient {
    async fn call(&self) -> Result<(), Failure> {
        let greeting: String = self.service.call("hello", ("zq",)).await?;
        match greeting == "Hello, zq!" {
            true => Ok(()),
            false => Err(format!("unexpected greeting {greeting}").into()),
        }
    }
}
