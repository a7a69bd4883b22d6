//! Files and variables as people have them.

use super::*;

const CLOUDS: &str = "\
clouds:
  hp1:
    auth:
      auth_url: https://cloud.example.com:5000/v3
      username: nodepool
      project-name: ci
      user_domain_name: Users
    region_name: R1
    interface: internalURL
    cacert: /etc/ca.pem
    compute_endpoint_override: http://127.0.0.1:8774/v2.1
  rh1:
    profile: rackish
    auth: {application_credential_id: abc, application_credential_secret: hush}
    regions:
    - name: east
      values: {interface: admin}
    - west
";
const SECURE: &str = "clouds:\n  hp1:\n    auth: {password: hush}\n";
const PUBLIC: &str = "\
public-clouds:
  rackish:
    auth_type: v3applicationcredential
    auth: {auth_url: 'http://rack.example.com/identity', application_credential_id: other}
    verify: false
";

fn ask(
    texts: [Option<&str>; 3],
    variables: &[(&str, &str)],
    name: Option<&str>,
    region: Option<&str>,
) -> Result<CloudSettings, String> {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let [clouds, secure, public] = texts;
    let text = |file, text: Option<&'static str>| text.map(|text| CloudsText { file, text });
    // Only of tests: texts that live as long as they.
    let leak = |text: Option<&str>| text.map(|t| &*Box::leak(t.to_owned().into_boxed_str()));
    let input = CloudsInput {
        clouds: text("clouds.yaml", leak(clouds)),
        secure: text("secure.yaml", leak(secure)),
        public: text("clouds-public.yaml", leak(public)),
        variables: &variables,
    };
    let settings = cloud(&input, name, region);
    assert!(!format!("{input:?} {settings:?}").contains("hush"), "a secret shows");
    settings.map_err(|error| error.to_string())
}

#[test]
fn a_cloud_comes_from_several_files() {
    let files = [Some(CLOUDS), Some(SECURE), Some(PUBLIC)];
    let hp1 = ask(files, &[("OS_CLOUD", "hp1"), ("OS_PASSWORD", "not this")], None, None).unwrap();
    assert_eq!((hp1.name.as_str(), hp1.region.as_deref()), ("hp1", Some("R1")));
    assert_eq!(hp1.interface, Interface::Internal);
    assert_eq!(hp1.tls, TlsSettings::File("/etc/ca.pem".to_owned()));
    assert_eq!(hp1.overrides["compute"], "http://127.0.0.1:8774/v2.1");
    let Auth::Password { user, password, scope } = hp1.auth else { panic!("no password") };
    let name = "nodepool".to_owned();
    assert_eq!(user, UserRef::Name { name, domain: Named::Name("Users".into()) });
    assert_eq!(password.reveal(), "hush");
    let domain = Named::Id("default".into());
    assert_eq!(scope, Scope::Project(UserRef::Name { name: "ci".into(), domain }));

    let rh1 = ask(files, &[], Some("rh1"), None).unwrap();
    assert_eq!((rh1.region.as_deref(), rh1.interface), (Some("east"), Interface::Admin));
    assert_eq!(
        (rh1.auth_url.as_str(), rh1.tls),
        ("http://rack.example.com/identity", TlsSettings::Nobody)
    );
    let Auth::ApplicationCredential { credential, .. } = rh1.auth else { panic!("{:?}", rh1.auth) };
    assert_eq!(credential, Ok("abc".to_owned()));
    let west = ask(files, &[], Some("rh1"), Some("west")).unwrap();
    assert_eq!((west.region.as_deref(), west.interface), (Some("west"), Interface::Public));
}

#[test]
fn a_cloud_comes_from_the_environment() {
    let variables = [
        ("OS_AUTH_URL", "http://h:5000"),
        ("OS_USERNAME", "admin"),
        ("OS_PASSWORD", "hush"),
        ("OS_TENANT_NAME", "admin"),
        ("OS_PROJECT_DOMAIN_ID", "d1"),
        ("OS_REGION_NAME", "RegionOne"),
        ("OS_INSECURE", "0"),
        ("OS_IDENTITY_API_VERSION", "3"),
        ("HOME", "/root"),
    ];
    let cloud = ask([None; 3], &variables, None, None).unwrap();
    assert_eq!((cloud.name.as_str(), cloud.region.as_deref()), ("envvars", Some("RegionOne")));
    let Auth::Password { scope, .. } = cloud.auth else { panic!("{:?}", cloud.auth) };
    let domain = Named::Id("d1".into());
    assert_eq!(scope, Scope::Project(UserRef::Name { name: "admin".into(), domain }));
    let system = [&variables[..3], &[("OS_SYSTEM_SCOPE", "all")]].concat();
    let Auth::Password { scope, .. } = ask([None; 3], &system, None, None).unwrap().auth else {
        panic!("no password");
    };
    assert_eq!(scope, Scope::System);
    let token = [("OS_AUTH_URL", "http://h:5000"), ("OS_TOKEN", "hush")];
    assert!(matches!(ask([None; 3], &token, None, None).unwrap().auth, Auth::Token { .. }));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let hp1 = |text: &str| ask([Some(text), None, None], &[], None, None).unwrap_err();
    for (text, expected) in [
        ("clouds: [a]\n", "clouds.yaml:1:9: clouds: it must be a map"),
        ("clouds: {a: {}, b: {}}\n", "OS_CLOUD: say which cloud: a, b"),
        ("", "OS_CLOUD: no cloud is configured"),
        ("clouds:\n  a: {\n", "clouds.yaml:3:1: it is no YAML"),
        (
            "clouds:\n  a:\n    auth:\n      username: u\n",
            "clouds.yaml:4:7: auth.auth_url is missing (OS_AUTH_URL)",
        ),
        (
            "clouds:\n  a:\n    auth: {auth_url: 'http://h', username: u}\n",
            "clouds.yaml:3:11: auth.password is missing (OS_PASSWORD)",
        ),
        (
            "clouds:\n  a:\n    auth_type: v3oidc\n    auth: {auth_url: 'http://h'}\n",
            "clouds.yaml:3:16: auth_type: it is `v3oidc`: use password, token",
        ),
        (
            "clouds:\n  a:\n    profile: x\n",
            "clouds.yaml:3:14: profile: clouds-public.yaml has no public-clouds.x",
        ),
        (
            "clouds:\n  a:\n    identity_api_version: 2.0\n    auth: {auth_url: 'http://h'}\n",
            "clouds.yaml:3:27: identity_api_version: it is 2.0: only 3 is spoken",
        ),
        (
            "clouds:\n  a:\n    verify: never\n    auth: {auth_url: 'http://h', token: x}\n",
            "clouds.yaml:3:13: verify: it is `never`: use true or false",
        ),
        (
            "clouds:\n  a:\n    auth: {auth_url: h, token: x}\n",
            "clouds.yaml:3:22: auth.auth_url: it must begin with http",
        ),
    ] {
        let error = hp1(text);
        assert!(error.starts_with(expected), "{text:?} gave {error:?}");
    }
    let files = [Some(CLOUDS), None, Some(PUBLIC)];
    let missing = ask(files, &[], Some("xx"), None).unwrap_err();
    assert_eq!(missing, "clouds.yaml: clouds.xx is not there; there are: hp1, rh1");
    let region = ask(files, &[], Some("rh1"), Some("north")).unwrap_err();
    assert_eq!(region, "clouds.yaml:16:7: there is no region north: east, west");
}

#[test]
fn files_are_looked_for_where_every_tool_looks() {
    let variables: BTreeMap<String, String> =
        [("OS_CLIENT_CONFIG_FILE", "/x/c.yaml"), ("HOME", "/home/ci")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
    let clouds = places(CloudsFile::Clouds, &variables);
    assert_eq!(clouds[..2], ["/x/c.yaml", "./clouds.yaml"]);
    assert!(clouds.contains(&"/home/ci/.config/openstack/clouds.yaml".to_owned()));
    assert_eq!(clouds.last().unwrap(), "/etc/openstack/clouds.json");
    assert_eq!(places(CloudsFile::Public, &variables)[0], "./clouds-public.yaml");
    let text = CloudsText { file: "c", text: CLOUDS };
    assert_eq!(cloud_names(text).unwrap().into_iter().collect::<Vec<_>>(), ["hp1", "rh1"]);
}
