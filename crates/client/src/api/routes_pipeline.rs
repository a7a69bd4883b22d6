//! Routes of the gate: pipelines and their items.

use super::client::{ApiClient, Call, part};
use super::error::ClientError;
use hyper::Method;
use toci_wire::api::{
    ChangeSource, EndedItem, EndedQuery, Pipeline, PipelineItem, PipelineOrder, Promote,
};

fn post(path: String) -> Call {
    Call::new(Method::POST, path)
}

/// The gate.
impl ApiClient {
    /// All pipelines with their queues.
    pub async fn pipelines(&self) -> Result<Vec<Pipeline>, ClientError> {
        self.ask(Call::new(Method::GET, "/pipelines".to_owned())).await
    }

    /// One pipeline.
    pub async fn pipeline(&self, name: &str) -> Result<Pipeline, ClientError> {
        self.ask(Call::new(Method::GET, format!("/pipelines/{}", part(name)))).await
    }

    /// One item.
    pub async fn item(&self, id: &str) -> Result<PipelineItem, ClientError> {
        self.ask(Call::new(Method::GET, format!("/items/{}", part(id)))).await
    }

    /// Items that left lately, the newest first.
    pub async fn ended_items(&self) -> Result<Vec<EndedItem>, ClientError> {
        self.ask(Call::new(Method::GET, "/ended-items".to_owned())).await
    }

    /// A page of the items that left, the newest first.
    pub async fn ended_items_page(
        &self,
        query: &EndedQuery,
    ) -> Result<Vec<EndedItem>, ClientError> {
        let EndedQuery { pipeline, project, change, result, before, limit } = query;
        let limit = limit.map(|limit| limit.to_string());
        let texts = [
            ("pipeline", pipeline),
            ("project", project),
            ("change", change),
            ("result", result),
            ("before", before),
            ("limit", &limit),
        ];
        let given = texts.iter().filter_map(|(key, text)| text.as_ref().map(|text| (key, text)));
        let given: Vec<String> = given.map(|(key, text)| format!("{key}={}", part(text))).collect();
        self.ask(Call::new(Method::GET, format!("/ended-items?{}", given.join("&")))).await
    }

    /// Puts something into a pipeline.
    pub async fn enqueue(&self, pipeline: &str, order: &PipelineOrder) -> Result<(), ClientError> {
        self.notify(post(format!("/pipelines/{}/enqueue", part(pipeline))), order).await
    }

    /// Throws something out of a pipeline.
    pub async fn dequeue(&self, pipeline: &str, order: &PipelineOrder) -> Result<(), ClientError> {
        self.notify(post(format!("/pipelines/{}/dequeue", part(pipeline))), order).await
    }

    /// Moves changes to the heads of their queues.
    pub async fn promote(&self, pipeline: &str, order: &Promote) -> Result<(), ClientError> {
        self.notify(post(format!("/pipelines/{}/promote", part(pipeline))), order).await
    }

    /// Has the layout read anew.
    pub async fn reconfigure(&self) -> Result<(), ClientError> {
        self.order(post("/reconfigure".to_owned())).await
    }

    /// How it stands with the sources.
    pub async fn sources(&self) -> Result<Vec<ChangeSource>, ClientError> {
        self.ask(Call::new(Method::GET, "/sources".to_owned())).await
    }

    /// Says that a source has news.
    pub async fn poke(&self, source: &str) -> Result<(), ClientError> {
        self.order(post(format!("/sources/{}/poke", part(source)))).await
    }
}
