//! Orders over HTTP: typed arguments, JSON, statuses, errors, a stream. All workers share the
//! store, a map.
//!
//! ```text
//! $ cargo run -p nameko-examples --bin orders -- run
//! $ curl -i localhost:8000/orders --json '{"item": "nut", "count": 3}'
//! $ curl localhost:8000/orders/1
//! $ curl 'localhost:8000/orders?item=nut'
//! $ curl localhost:8000/orders.csv
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nameko::{
    prelude::*,
    web::{self, Json, Response, StatusCode},
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    item: String,
    count: u32,
}

/// The orders, keyed by number.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<BTreeMap<u64, Order>>>);

impl Store {
    fn orders(&self) -> MutexGuard<'_, BTreeMap<u64, Order>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DependencyProvider for Store {
    type Dependency = Self;

    async fn get_dependency(&self, _ctx: &WorkerContext) -> Result<Self> {
        Ok(self.clone())
    }
}

#[derive(Dependencies)]
struct Orders {
    #[dependency(Store::default())]
    store: Store,
}

#[service("orders")]
impl Orders {
    #[http(GET, "/orders/{id}")]
    async fn order(&self, id: u64) -> Result<Json<Order>> {
        match self.store.orders().get(&id) {
            Some(order) => Ok(Json(order.clone())),
            None => Err(web::Error::not_found(format!("no order {id}")).into()),
        }
    }

    #[http(GET, "/orders")]
    async fn list(&self, item: Option<String>) -> Result<Json<BTreeMap<u64, Order>>> {
        let mut orders = self.store.orders().clone();
        if let Some(item) = item {
            orders.retain(|_, order| order.item == item);
        }
        Ok(Json(orders))
    }

    #[http(POST, "/orders")]
    async fn add(
        &self,
        order: Json<Order>,
    ) -> Result<(StatusCode, [(&'static str, String); 1], Json<u64>)> {
        if order.0.count == 0 {
            return Err(web::Error::bad_request("an order of nothing").into());
        }
        let mut orders = self.store.orders();
        let id = orders.keys().next_back().copied().unwrap_or(0) + 1;
        orders.insert(id, order.0);
        let location = [("Location", format!("/orders/{id}"))];
        Ok((StatusCode::CREATED, location, Json(id)))
    }

    #[http(DELETE, "/orders/{id}")]
    async fn cancel(&self, id: u64) -> Result<()> {
        self.store.orders().remove(&id);
        Ok(())
    }

    /// Streams the lines one by one.
    #[http(GET, "/orders.csv")]
    async fn export(&self) -> Result<Response> {
        let orders = self.store.orders().clone();
        let lines = orders
            .into_iter()
            .map(|(id, order)| Ok::<_, Error>(format!("{id},{},{}\n", order.item, order.count)));
        Response::stream(futures_util::stream::iter(lines)).header("Content-Type", "text/csv")
    }
}

fn main() -> ExitCode {
    nameko::main(services![Orders])
}
