//! The hello service on Nameko without default features: no macros, no command line.

use nameko::{
    Bindings, Config, Container, Dependencies, Entrypoints, Injector, Method, Param, Result, Rpc,
    Service,
};

struct HelloService;

impl HelloService {
    async fn hello(&self, name: String) -> Result<String> {
        Ok(format!("Hello, {name}!"))
    }
}

impl Dependencies for HelloService {
    fn bind(_: &mut Bindings<'_>) -> Injector<Self> {
        Injector::new(|_ctx| async { Ok(Self) })
    }
}

impl Service for HelloService {
    const NAME: &'static str = "bench_minimal";

    fn entrypoints(entrypoints: &mut Entrypoints<Self>) {
        const NAME: &[Param] = &[Param::required("name")];
        let hello = Method::new("hello", NAME, |args| {
            let name = args.take::<String>()?;
            Ok(Method::call(move |service: &Self| {
                Box::pin(async move { Method::<Self>::reply(service.hello(name).await) })
            }))
        });
        entrypoints.add(Rpc::new(), hello);
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let uri = "amqp://guest:guest@localhost";
    let container = Container::new::<HelloService>(Config::new().with("AMQP_URI", uri))?;
    container.start().await?;
    container.wait().await
}
