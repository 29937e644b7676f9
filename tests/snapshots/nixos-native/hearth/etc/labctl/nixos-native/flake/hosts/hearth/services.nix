# made by labctl from lab.yaml: edit that instead
{ lib, pkgs, ... }:
{
  services.ollama = {
    enable = true;
    package = pkgs.ollama-cuda;
    host = "127.0.0.1";
    port = 22994;
    environmentVariables = {
      CUDA_DEVICE_ORDER = "PCI_BUS_ID";
      CUDA_VISIBLE_DEVICES = "0";
      OLLAMA_CONTEXT_LENGTH = "8192";
      OLLAMA_FLASH_ATTENTION = "1";
      OLLAMA_KEEP_ALIVE = "300s";
      OLLAMA_KV_CACHE_TYPE = "f16";
      OLLAMA_MAX_LOADED_MODELS = "1";
      OLLAMA_NO_CLOUD = "1";
      OLLAMA_NOPRUNE = "1";
      OLLAMA_NUM_PARALLEL = "1";
    };
    loadModels = [ "llama3.1:8b" ];
  };

  services.litellm = {
    enable = true;
    # for the callbacks prometheus
    package = pkgs.litellm.overridePythonAttrs (old: {
      dependencies = lib.concatLists [
        old.dependencies
        [ pkgs.python3Packages.prometheus-client ]
      ];
    });
    host = "192.0.2.10";
    port = 4000;
    settings = {
      model_list = [
        {
          model_name = "llama3";
          litellm_params = {
            model = "ollama_chat/llama3.1:8b";
            api_base = "http://127.0.0.1:22994";
          };
          model_info = {
            id = "llama3@hearth-gpu0";
            mode = "chat";
            cooldown_time = 0;
          };
        }
        {
          model_name = "stheno";
          litellm_params = {
            model = "openai/stheno";
            api_base = "http://192.0.2.11:28037/v1";
            api_key = "none";
          };
          model_info = {
            id = "stheno@ember-gpu0";
            mode = "chat";
            cooldown_time = 0;
          };
        }
      ];
      litellm_settings = {
        drop_params = true;
        callbacks = [ "prometheus" ];
      };
      router_settings = {
        routing_strategy = "simple-shuffle";
        num_retries = 2;
        enable_weighted_failover = true;
        allowed_fails = 2;
        cooldown_time = 60;
        timeout = 600;
        model_group_alias.default = "llama3";
      };
      general_settings = {
        master_key = "os.environ/LITELLM_MASTER_KEY";
        custom_auth = "labctl_auth.check";
        health_check_skip_disabled_background_models = true;
        background_health_checks = false;
      };
    };
    environment = {
      LITELLM_MODE = "PRODUCTION";
      LITELLM_LOCAL_MODEL_COST_MAP = "True";
      PYTHONPATH = "${./files/gateway}";
    };
    environmentFile = "/var/lib/labctl/nixos-native/secrets/gateway.env";
  };

  services.prometheus = {
    enable = true;
    exporters.nvidia-gpu = {
      enable = true;
      listenAddress = "127.0.0.1";
      port = 21170;
    };
    listenAddress = "127.0.0.1";
    port = 28103;
    retentionTime = "30d";
    extraFlags = [ "--storage.tsdb.retention.size=16384MB" ];
    globalConfig = {
      scrape_interval = "15s";
      evaluation_interval = "15s";
      external_labels.lab = "nixos-native";
    };
    scrapeConfigs = [
      {
        job_name = "grafana";
        metrics_path = "/metrics";
        static_configs = [
          {
            targets = [ "192.0.2.10:3000" ];
            labels = {
              host = "hearth";
              workload = "grafana";
            };
          }
        ];
      }
      {
        job_name = "litellm";
        metrics_path = "/metrics/";
        authorization = {
          type = "Bearer";
          credentials_file = "/run/credentials/prometheus.service/gateway-key";
        };
        static_configs = [
          {
            targets = [ "192.0.2.10:4000" ];
            labels = {
              host = "hearth";
              workload = "gateway";
            };
          }
        ];
      }
      {
        job_name = "llama.cpp";
        metrics_path = "/metrics";
        static_configs = [
          {
            targets = [ "192.0.2.11:28037" ];
            labels = {
              host = "ember";
              workload = "story";
            };
          }
        ];
      }
      {
        job_name = "nvidia-smi";
        metrics_path = "/metrics";
        static_configs = [
          {
            targets = [ "127.0.0.1:21170" ];
            labels = {
              host = "hearth";
              workload = "gpu-exporter-hearth";
            };
          }
        ];
      }
      {
        job_name = "prometheus";
        metrics_path = "/metrics";
        static_configs = [
          {
            targets = [ "127.0.0.1:28103" ];
            labels = {
              host = "hearth";
              workload = "prometheus";
            };
          }
        ];
      }
    ];
    ruleFiles = [ ./files/prometheus/rules.yml ];
    # the key is not there while the configuration is built
    checkConfig = "syntax-only";
  };

  services.grafana = {
    enable = true;
    settings = {
      server = {
        http_addr = "192.0.2.10";
        http_port = 3000;
      };
      users.allow_sign_up = false;
      "auth.anonymous".enabled = false;
      analytics = {
        reporting_enabled = false;
        check_for_updates = false;
        check_for_plugin_updates = false;
      };
      news.news_feed_enabled = false;
      security = {
        admin_password = "$__env{GF_SECURITY_ADMIN_PASSWORD}";
        secret_key = "$__file{/var/lib/grafana/labctl-secret-key}";
      };
      dashboards.default_home_dashboard_path = "${./files/grafana}/lab.json";
    };
    provision = {
      enable = true;
      datasources.settings = {
        apiVersion = 1;
        datasources = [
          {
            name = "Prometheus";
            type = "prometheus";
            url = "http://127.0.0.1:28103";
            isDefault = true;
            uid = "labctl-prometheus";
            access = "proxy";
            editable = false;
          }
        ];
      };
      dashboards.settings = {
        apiVersion = 1;
        providers = [
          {
            name = "labctl";
            type = "file";
            disableDeletion = true;
            allowUiUpdates = false;
            options.path = ./files/grafana;
          }
        ];
      };
    };
  };

  services.open-webui = {
    enable = true;
    host = "192.0.2.10";
    port = 8080;
    environment = {
      WEBUI_NAME = "nixos-native";
      WEBUI_ADMIN_EMAIL = "admin@localhost";
      ENABLE_SIGNUP = "False";
      DEFAULT_USER_ROLE = "pending";
      ENABLE_PERSISTENT_CONFIG = "False";
      ENABLE_OLLAMA_API = "False";
      ANONYMIZED_TELEMETRY = "False";
      DO_NOT_TRACK = "true";
      SCARF_NO_ANALYTICS = "true";
      ENABLE_VERSION_UPDATE_CHECK = "False";
      ENABLE_OPENAI_API = "True";
      OPENAI_API_BASE_URL = "http://192.0.2.10:4000/v1";
      DEFAULT_MODELS = "llama3";
      ENABLE_WEB_SEARCH = "False";
    };
    environmentFile = "/var/lib/labctl/nixos-native/secrets/open-webui.env";
  };

  systemd.services = {
    ollama.serviceConfig = {
      Restart = "always";
      RestartSec = 10;
    };
    litellm = {
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      serviceConfig = {
        Restart = "always";
        RestartSec = 10;
      };
    };
    # another driver's nvidia-smi would fail beside the kernel module that is loaded
    prometheus-nvidia-gpu-exporter.restartIfChanged = false;
    grafana = {
      preStart = ''
        if [ ! -s /var/lib/grafana/labctl-secret-key ]; then
          (umask 077 && head -c 32 /dev/urandom | base64 > /var/lib/grafana/labctl-secret-key)
        fi
        if systemctl is-active --quiet prometheus.service; then
          curl --silent --fail --noproxy '*' --output /dev/null --max-time 5 \
            --retry 165 --retry-delay 1 --retry-max-time 165 --retry-all-errors \
            http://127.0.0.1:28103/-/ready || true
        fi
      '';
      serviceConfig = {
        EnvironmentFile = "/var/lib/labctl/nixos-native/secrets/grafana.env";
        TimeoutStartSec = 225;
      };
      wants = [ "network-online.target" "prometheus.service" ];
      after = [ "network-online.target" "prometheus.service" ];
      path = [ pkgs.curl ];
    };
    open-webui = {
      wants = [ "network-online.target" "litellm.service" ];
      after = [ "network-online.target" "litellm.service" ];
      path = [ pkgs.curl ];
      preStart = ''
        if systemctl is-active --quiet litellm.service; then
          curl --silent --fail --noproxy '*' --output /dev/null --max-time 5 \
            --retry 225 --retry-delay 1 --retry-max-time 225 --retry-all-errors \
            http://192.0.2.10:4000/health/liveliness || true
        fi
      '';
      serviceConfig = {
        Restart = "always";
        RestartSec = 10;
        TimeoutStartSec = 285;
      };
    };
    prometheus.serviceConfig.LoadCredential = [
      "gateway-key:/var/lib/labctl/nixos-native/secrets/prometheus.gateway-key"
    ];
  };
}
