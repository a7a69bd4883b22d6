//! Routes of nodes and providers.

use super::client::{ApiClient, Call, part};
use super::error::ClientError;
use hyper::Method;
use toci_wire::api::{Autohold, AutoholdRequest, Node, NodeHold, NodeImage, PauseOrder, Provider};

impl ApiClient {
    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<Node>, ClientError> {
        self.ask(Call::new(Method::GET, "/nodes".to_owned())).await
    }

    /// One node.
    pub async fn node(&self, node: &str) -> Result<Node, ClientError> {
        self.ask(Call::new(Method::GET, format!("/nodes/{}", part(node)))).await
    }

    /// Keeps a node for people to look at.
    pub async fn hold_node(&self, node: &str, hold: &NodeHold) -> Result<Node, ClientError> {
        self.tell(Call::new(Method::POST, format!("/nodes/{}/hold", part(node))), hold).await
    }

    /// Deletes a node.
    pub async fn delete_node(&self, node: &str) -> Result<(), ClientError> {
        let call = Call::new(Method::POST, format!("/nodes/{}/delete", part(node)));
        self.notify(call, &serde_json::json!({})).await
    }

    /// Every standing wish to keep the nodes of failures to come.
    pub async fn autoholds(&self) -> Result<Vec<Autohold>, ClientError> {
        self.ask(Call::new(Method::GET, "/autoholds".to_owned())).await
    }

    /// Keeps the nodes of failures to come.
    pub async fn autohold(&self, wish: &AutoholdRequest) -> Result<Autohold, ClientError> {
        self.tell(Call::new(Method::POST, "/autoholds".to_owned()), wish).await
    }

    /// Does not, after all.
    pub async fn delete_autohold(&self, id: &str) -> Result<(), ClientError> {
        let call = Call::new(Method::POST, format!("/autoholds/{}/delete", part(id)));
        self.notify(call, &serde_json::json!({})).await
    }

    /// All providers of nodes.
    pub async fn providers(&self) -> Result<Vec<Provider>, ClientError> {
        self.ask(Call::new(Method::GET, "/providers".to_owned())).await
    }

    /// Builds nothing more at a provider.
    pub async fn pause_provider(&self, provider: &str, reason: &str) -> Result<(), ClientError> {
        let order = PauseOrder { reason: reason.to_owned() };
        let call = Call::new(Method::POST, format!("/providers/{}/pause", part(provider)));
        self.notify(call, &order).await
    }

    /// Builds there again.
    pub async fn resume_provider(&self, provider: &str) -> Result<(), ClientError> {
        self.order(Call::new(Method::POST, format!("/providers/{}/resume", part(provider)))).await
    }

    /// All images that machines are made of.
    pub async fn node_images(&self) -> Result<Vec<NodeImage>, ClientError> {
        self.ask(Call::new(Method::GET, "/images".to_owned())).await
    }

    /// Has an image of this name made anew.
    pub async fn rebuild_node_image(&self, image: &str) -> Result<(), ClientError> {
        let call = Call::new(Method::POST, format!("/images/{}/rebuild", part(image)));
        self.notify(call, &serde_json::json!({})).await
    }

    /// Has no node made any more of the image with this id.
    pub async fn withdraw_node_image(&self, id: &str) -> Result<(), ClientError> {
        self.order(Call::new(Method::POST, format!("/images/{}/withdraw", part(id)))).await
    }
}
