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
fn a6_faults_of_services_have_a_place_and_a_hint() {
    let url = |url: &str| CONSUL.replace("http://127.0.0.1:8500", url);
    let cases = [
        ("kind = \"consul\"\nkey = \"a\"".to_owned(), (17, 8), "needs `url`", ""),
        ("kind = \"consul\"\nurl = \"http://a\"".to_owned(), (17, 8), "needs `key`", ""),
        ("kind = \"consl\"".to_owned(), (17, 8), "unknown kind", "did you mean `consul`"),
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
        (format!("{CONSUL}\nlease = \"1s\""), (20, 9), "`lease` does not belong", "`consul` takes url, key"),
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
