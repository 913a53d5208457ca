//! Traffic at flag services.

use super::*;

fn with_service(keys: &str) -> Result<Plan, PlanError> {
    parse(&format!("{SMALLEST}[[traffic]]\n{keys}"))
}

fn service(keys: &str) -> FlagService {
    let Traffic::Service(service) = with_service(keys).unwrap().traffic.remove(1) else { panic!("it is no service") };
    *service
}

const CONSUL: &str = "kind = \"consul\"\nurl = \"http://127.0.0.1:8500\"\nkey = \"shop/writes\"";

#[test]
fn a6_services_have_defaults_and_name_places() {
    let consul = service(CONSUL);
    assert_eq!(consul.flag, ServiceFlag::Consul { key: "shop/writes".to_owned() });
    assert_eq!((consul.timeout, consul.settle, consul.token), (Duration::from_secs(2), Duration::ZERO, None));
    let with_all =
        "token = \"t${PASSWORD}\"\nca_file = \"ca.pem\"\ntimeout = \"1s\"\nsettle = \"1500ms\"\nsource = [\"blue\"]\nthrough = [\"pool\"]";
    let plan = Plan::parse(&format!("{SMALLEST}[[traffic]]\n{CONSUL}\n{with_all}"), &|_| Some("secret".to_owned())).unwrap();
    let Traffic::Service(consul) = &plan.traffic[1] else { panic!("it is no service") };
    assert_eq!(consul.token.as_ref().unwrap().expose(), "tsecret");
    assert!(!format!("{plan:?}").contains("tsecret"));
    assert_eq!((consul.settle, consul.ca_file.as_deref()), (Duration::from_millis(1500), Some(std::path::Path::new("ca.pem"))));
    let leading_to = |side| plan.names().leading_to(side).iter().cloned().collect::<Vec<_>>();
    assert_eq!(leading_to(Side::Source), ["127.0.0.1:5433/orders", "blue", "pool"]);
    assert_eq!(leading_to(Side::Target), ["127.0.0.1:5434/orders", "pool"]);
    assert_eq!(plan.places().unwrap().find("blue"), Some(Place::At(Side::Source)), "`cutover serve` knows them too");
}

#[test]
fn a6_each_service_finds_its_flag() {
    let keys = |kind: &str, more: &str| format!("kind = \"{kind}\"\ntoken = \"t\"\nflag = \"writes\"\nenvironment = \"prod\"\n{more}");
    let [project, environment, flag, database] = ["default", "prod", "writes", "database"].map(str::to_owned);
    let launchdarkly = service(&keys("launchdarkly", ""));
    let place = LaunchDarklyFlag {
        project: project.clone(),
        environment: environment.clone(),
        flag: flag.clone(),
        context: "user".to_owned(),
        attribute: database.clone(),
    };
    assert_eq!(launchdarkly.url, "https://app.launchdarkly.com");
    assert_eq!(launchdarkly.flag, ServiceFlag::LaunchDarkly(place.clone()));
    let other = service(&keys("launchdarkly", "project = \"shop\"\ncontext = \"pod\"\nattribute = \"db\""));
    let [shop, context, attribute] = ["shop", "pod", "db"].map(str::to_owned);
    assert_eq!(other.flag, ServiceFlag::LaunchDarkly(LaunchDarklyFlag { project: shop, context, attribute, ..place }));
    let unleash = service(&keys("unleash", "url = \"https://flags.example/base\""));
    let place = UnleashFlag { project, environment: environment.clone(), flag: flag.clone(), attribute: database.clone() };
    assert_eq!((&unleash.url[..], unleash.flag), ("https://flags.example/base", ServiceFlag::Unleash(place)));
    let flagsmith = service(&keys("flagsmith", "source_segment = 1\ntarget_segment = 2"));
    let place = FlagsmithFlag { environment: environment.clone(), flag: flag.clone(), attribute: database.clone(), segments: [1, 2] };
    assert_eq!((&flagsmith.url[..], flagsmith.flag), ("https://api.flagsmith.com", ServiceFlag::Flagsmith(place)));
    let split = service(&keys("split", "workspace = \"w1\""));
    let place = SplitFlag { workspace: "w1".to_owned(), environment, flag, attribute: database };
    assert_eq!((&split.url[..], split.flag), ("https://api.split.io", ServiceFlag::Split(place)));
}

#[test]
fn a6_faults_of_services_have_a_place_and_a_hint() {
    let url = |url: &str| CONSUL.replace("http://127.0.0.1:8500", url);
    let cases = [
        ("kind = \"consul\"\nkey = \"a\"".to_owned(), (17, 8), "needs `url`", ""),
        ("kind = \"consul\"\nurl = \"http://a\"".to_owned(), (17, 8), "needs `key`", ""),
        ("kind = \"consl\"".to_owned(), (17, 8), "unknown kind", "did you mean `consul`"),
        ("kind = \"launchdarkly\"\nflag = \"a\"\nenvironment = \"b\"".to_owned(), (17, 8), "needs `token`", ""),
        ("kind = \"launchdarkly\"\nflag = \"a\"".to_owned(), (17, 8), "needs `environment`", ""),
        ("kind = \"unleash\"\nenvironment = \"b\"".to_owned(), (17, 8), "needs `flag`", ""),
        ("kind = \"unleash\"\ntoken = \"t\"\nflag = \"a\"\nenvironment = \"b\"".to_owned(), (17, 8), "needs `url`", ""),
        ("kind = \"split\"\nflag = \"a\"\nenvironment = \"b\"".to_owned(), (17, 8), "needs `workspace`", ""),
        ("kind = \"split\"\nflag = \"a/b\"\nworkspace = \"w\"\nenvironment = \"b\"".to_owned(), (18, 8), "can't be a `flag`", "slash"),
        ("kind = \"flagsmith\"\nflag = \"a\"\nsource_segment = 1".to_owned(), (17, 8), "needs `target_segment`", ""),
        ("kind = \"flagsmith\"\nsource_segment = 1\ntarget_segment = 1".to_owned(), (19, 18), "the same segment", "another for the target"),
        ("kind = \"unleash\"\nkey = \"b\"".to_owned(), (18, 7), "`key` does not belong", "`unleash` takes project"),
        (url("127.0.0.1:8500"), (18, 7), "this is no URL", "https://"),
        (url("ftp://a"), (18, 7), "begins with http", "https://"),
        (url("http://me:hunter2@a"), (18, 7), "no user", "token"),
        (url("http://a?dc=b"), (18, 7), "no user, query", "https://"),
        (CONSUL.replace("shop/writes", "/shop"), (19, 7), "`/shop` can't be a `key`", "slash"),
        (CONSUL.replace("shop/writes", "shop/../acl"), (19, 7), "can't be a `key`", "slash"),
        (format!("{CONSUL}\ntoken = \"\""), (20, 9), "can't be a token", "${NAME}"),
        (format!("{CONSUL}\ntoken = \"hunter2 \""), (20, 9), "can't be a token", "${NAME}"),
        (format!("{CONSUL}\ntimeout = \"10ms\""), (20, 11), "out of range", "50ms to 60s"),
        (format!("{CONSUL}\nsettle = \"1600ms\""), (20, 10), "too long", "at most half of pause.budget, which is 3s"),
        (format!("{CONSUL}\nlease = \"1s\""), (20, 9), "`lease` does not belong", "`consul` takes key, url"),
        (format!("{CONSUL}\nsource = [\"127.0.0.1:5434\"]"), (20, 11), "can mean more than one side", "one place only"),
    ];
    for (keys, place, message, hint) in cases {
        let error = with_service(&keys).unwrap_err();
        assert!(error.message.contains(message), "{keys}: {error}");
        assert_eq!((error.line, error.column), place, "{keys}: {error}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
