// An Azure Container App: without requests no replica, and no cost.
//   az deployment group create --resource-group GROUP --template-file container-app.bicep --parameters image=IMAGE
// docs/deploy/scale-to-zero.md explains every value.
targetScope = 'resourceGroup'

@description('Name of the app, and the first part of its host name.')
@minLength(2)
@maxLength(32)
param name string = 'distilgpt2-api'

@description('Public image with its registry, by tag or (better) by digest.')
@minLength(3)
param image string

@description('Region.')
param location string = resourceGroup().location

@description('Most replicas. With 0 requests there is none.')
@minValue(1)
@maxValue(100)
param maxReplicas int = 10

@description('API keys, NAME:KEY, comma-separated. Empty: anyone who has the address can use the service.')
@secure()
param apiKeys string = ''

resource environment 'Microsoft.App/managedEnvironments@2025-01-01' = {
  name: '${name}-environment'
  location: location
  properties: {}
}

resource app 'Microsoft.App/containerApps@2025-01-01' = {
  name: name
  location: location
  properties: {
    managedEnvironmentId: environment.id
    configuration: {
      ingress: {
        external: true
        targetPort: 8000
        transport: 'http'
        allowInsecure: false
      }
      secrets: empty(apiKeys) ? [] : [
        {
          name: 'api-keys'
          value: apiKeys
        }
      ]
    }
    template: {
      // Seconds from SIGTERM to SIGKILL: the drain and time to exit.
      terminationGracePeriodSeconds: 30
      containers: [
        {
          name: 'api'
          image: image
          env: concat([
            {
              name: 'DISTILGPT2_LOG_FORMAT'
              value: 'json'
            }
            {
              name: 'DISTILGPT2_DRAIN_S'
              value: '20'
            }
          ], empty(apiKeys) ? [] : [
            {
              name: 'DISTILGPT2_API_KEYS'
              secretRef: 'api-keys'
            }
          ])
          resources: {
            // The consumption plan has fixed pairs: 2 GiB for each core.
            cpu: json('2.0')
            memory: '4.0Gi'
          }
          probes: [
            {
              type: 'Startup'
              httpGet: {
                path: '/readyz'
                port: 8000
              }
              // Azure allows at most 10 failures: 50 s for the model to load.
              periodSeconds: 5
              timeoutSeconds: 2
              failureThreshold: 10
            }
            {
              type: 'Readiness'
              httpGet: {
                path: '/readyz'
                port: 8000
              }
              periodSeconds: 5
              timeoutSeconds: 3
              failureThreshold: 2
            }
            {
              type: 'Liveness'
              httpGet: {
                path: '/livez'
                port: 8000
              }
              periodSeconds: 10
              timeoutSeconds: 5
              failureThreshold: 3
            }
          ]
        }
      ]
      scale: {
        minReplicas: 0
        maxReplicas: maxReplicas
        // The last replica stays this long after the last request, in seconds.
        cooldownPeriod: 300
        rules: [
          {
            name: 'http'
            http: {
              metadata: {
                // Requests per second and replica, which is what Azure counts: the requests of 15 seconds, divided by 15.
                concurrentRequests: '10'
              }
            }
          }
        ]
      }
    }
  }
}

output url string = 'https://${app.properties.configuration.ingress.fqdn}'
