//! What the agent would write, against what it wrote.

use super::task::{ReadError, read};
use super::*;

fn identity(instance: bool) -> Identity {
    Identity {
        cluster: "demo-cluster".into(),
        task_arn: "arn:aws:ecs:us-west-2:123456789012:task/demo-cluster/0b69d5c0d6554fe4a2d2f9b5c7f6a1e3".into(),
        instance_id: instance.then(|| "i-0abcd1234ef567890".to_owned()),
    }
}

fn task(router: &str, app: &str) -> String {
    format!(
        r#"{{"family":"web","revision":7,"networkMode":"bridge","containerDefinitions":[
            {{"name":"app","image":"x","logConfiguration":{{"logDriver":"awsfirelens"{app}}}}},
            {{"name":"log_router","image":"x","firelensConfiguration":{{{router}}},"memoryReservation":50}}]}}"#
    )
}

#[test]
fn fluent_bit_s_file_is_the_agents() {
    let text = task(
        r#""type":"fluentbit","options":{"config-file-type":"file","config-file-value":"/extra.conf"}"#,
        r#","options":{"Name":"firehose","region":"eu-central-1","delivery_stream":"s","include-pattern":"a b","exclude-pattern":"^x$","log-driver-buffer-limit":"100"},"secretOptions":[{"name":"apikey","valueFrom":"arn"}]"#,
    );
    let generated = generate(&read(&text).unwrap(), &identity(true)).unwrap();
    assert_eq!(
        generated.text,
        "
[INPUT]
    Name forward
    Mem_Buf_Limit 25MB
    unix_path /var/run/fluent.sock

[INPUT]
    Name forward
    Listen 0.0.0.0
    Port 24224

[INPUT]
    Name tcp
    Tag firelens-healthcheck
    Listen 127.0.0.1
    Port 8877

[FILTER]
    Name   grep
    Match app-firelens*
    Regex  log a b

[FILTER]
    Name   grep
    Match app-firelens*
    Exclude log ^x$

[FILTER]
    Name record_modifier
    Match *
    Record ec2_instance_id i-0abcd1234ef567890
    Record ecs_cluster demo-cluster
    Record ecs_task_arn arn:aws:ecs:us-west-2:123456789012:task/demo-cluster/0b69d5c0d6554fe4a2d2f9b5c7f6a1e3
    Record ecs_task_definition web:7

@INCLUDE /extra.conf

[OUTPUT]
    Name null
    Match firelens-healthcheck

[OUTPUT]
    Name firehose
    Match app-firelens*
    apikey ${apikey_0}
    delivery_stream s
    region eu-central-1
"
    );
    assert_eq!(generated.included, Some(Included { path: "/extra.conf".into(), arn: None }));
}

#[test]
fn host_mode_has_the_unix_socket_only_and_metadata_can_be_off() {
    let text =
        task(r#""type":"fluentbit","options":{"enable-ecs-log-metadata":"maybe"}"#, "").replace("bridge", "host");
    let generated = generate(&read(&text).unwrap(), &identity(false)).unwrap();
    assert_eq!(
        generated.text,
        "\n[INPUT]\n    Name forward\n    Mem_Buf_Limit 25MB\n    unix_path /var/run/fluent.sock\n"
    );
}

#[test]
fn what_the_agent_refuses_is_refused_whole() {
    let text = task(r#""type":"fluentbit","options":{"config-file-type":"ssm"}"#, r#","options":{"region":"x"}"#);
    let problems = generate(&read(&text).unwrap(), &identity(false)).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("config-file-type") && problems[1].contains("missing output key"), "{problems:?}");
    let text =
        task(r#""type":"fluentbit","options":{"config-file-type":"s3","config-file-value":"arn:aws:s3:::b/k"}"#, "");
    let fargate = text.replace(r#""networkMode":"bridge""#, r#""requiresCompatibilities":["FARGATE"]"#);
    assert!(generate(&read(&text).unwrap(), &identity(false)).is_ok());
    assert!(generate(&read(&fargate).unwrap(), &identity(false)).unwrap_err()[0].contains("EC2 only"));
}

#[test]
fn other_spellings_are_read_and_others_documents_refused() {
    let registered = task(r#""type":"fluentd""#, r#","options":{"@type":"s3"}"#);
    let described = format!(r#"{{"taskDefinition":{registered}}}"#);
    let template = r#"{"Type":"AWS::ECS::TaskDefinition","Properties":{"Family":"web","NetworkMode":"awsvpc","ContainerDefinitions":[
        {"Name":"app","LogConfiguration":{"LogDriver":"awsfirelens","Options":{"Name":"null"}}},
        {"Name":"r","FirelensConfiguration":{"Type":"fluentbit"}}]}}"#;
    assert_eq!(read(&described).unwrap(), read(&registered).unwrap());
    let cloud_formation = read(template).unwrap();
    assert_eq!(cloud_formation.containers[0].options["Name"], "null");
    assert_eq!(cloud_formation.network_mode, NetworkMode::Awsvpc);
    for (text, place) in [
        ("[]", "containerDefinitions"),
        (r#"{"containerDefinitions":[{}]}"#, "containerDefinitions[0].name"),
        (
            r#"{"containerDefinitions":[{"name":"r","firelensConfiguration":{"type":"x"}}]}"#,
            "firelensConfiguration.type",
        ),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(place), "{error}");
    }
    assert!(matches!(read("{"), Err(ReadError::Json(_))));
}
